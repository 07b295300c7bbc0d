"""``python -m deblend_batch``."""

from deblend_batch.cli.main import run

run()
