"""The point spread function of an image: measured from its stars, or brought by files."""
