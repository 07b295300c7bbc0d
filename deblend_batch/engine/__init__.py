"""The run: plan, tiles, actors, the driver's loop and its ledger. The only package that knows Ray."""
