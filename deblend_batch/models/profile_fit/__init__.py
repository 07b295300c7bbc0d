"""Batched fits of Sersic profiles and point sources to blends of any size."""
