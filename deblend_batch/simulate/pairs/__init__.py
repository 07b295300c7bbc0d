"""Blended pairs: which galaxies, where, how bright, and sets of them on disk."""
