"""Metrics, baselines and reports: how good the fluxes are, against truth and against other ways."""
