"""What an image's header says: its place, its unit, its zero point, its mask's names."""
