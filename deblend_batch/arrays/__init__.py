"""Zarr groups of any store: opened with one-line errors, and bounded in what strangers may ask for."""
