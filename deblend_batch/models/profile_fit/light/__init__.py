"""What a blend looks like: Sersic profiles and PSFs as Gaussians, drawn in cells."""
