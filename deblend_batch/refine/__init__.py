"""Detection and fit in turn: a fit says which sources are none, and where one is missing."""
