"""Whether an output is what it says: verification, recomputation, publication, merging."""
