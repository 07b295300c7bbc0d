"""Batches of fixed shape for the model of a process, whichever tiles their stamps are of."""
