"""How many stamps a network computes together. Needs no torch."""

from __future__ import annotations

from typing import Final

LEAST_ROWS: Final = 16
"""A batch is a multiple of so many rows: a CPU computes a smaller one with kernels that round otherwise."""
CPU_ROWS: Final = 64
"""Rows of a batch on a CPU where nobody says; a larger one gains nothing."""
CUDA_ROWS: Final = 1024
"""Rows of a batch on a GPU where nobody says."""
MOST_ROWS: Final = 4096
"""Rows of the largest batch that an actor takes by itself, beyond which no GPU gains."""
