"""ASDF, as Roman writes images: its tree, its blocks and its gWCS, in bounds, without what it refers to."""
