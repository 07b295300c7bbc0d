"""Training: simulated pairs in, a weights file with its card out."""
