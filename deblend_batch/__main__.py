"""``python -m deblend_batch``."""

import os
import sys

if (
    not sys.flags.safe_path
):  # Python has put the working folder first, which holds data, not modules
    sys.path[:] = [entry for entry in sys.path if entry and entry != os.getcwd()]

from deblend_batch.cli.main import run

run()
