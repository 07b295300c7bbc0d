"""The networks: what flows in, their layers, what comes out."""
