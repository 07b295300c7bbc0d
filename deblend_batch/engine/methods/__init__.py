"""How a run's model measures blends: what it is given of stamps, and what its answers mean."""
