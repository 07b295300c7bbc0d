"""Detection of the sources of a field, for users who have none: tile by tile, each source once."""
