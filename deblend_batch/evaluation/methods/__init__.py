"""Ways to the fluxes of a pair: models of this package and the baselines of others."""
