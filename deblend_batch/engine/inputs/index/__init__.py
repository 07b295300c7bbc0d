"""Indexing a field: from its detection table to the blends of each tile."""
