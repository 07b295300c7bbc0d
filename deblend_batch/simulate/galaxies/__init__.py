"""Isolated galaxies: their population, their pixels, and pools of them."""
