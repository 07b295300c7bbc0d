"""Detection tables in every common format, as Arrow tables."""
