"""The evaluation as one page, with its figures."""
