"""The point spread function of a field: what it looks like, how it varies, how it is stored."""
