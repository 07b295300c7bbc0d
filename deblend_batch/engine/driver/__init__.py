"""The driver's loop: which tile goes to which worker, and what is done about failures."""
