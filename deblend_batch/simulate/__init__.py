"""Galaxies, pairs and survey fields with known truth."""
