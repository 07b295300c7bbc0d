"""What the environment of a worker must say before it starts."""

from __future__ import annotations

ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""That the threads of a worker share one heap.

The C library of Linux else gives each thread a heap of its own, up to eight a core, and what the threads of
tiles and model free stays in theirs, where no other can use it: after 36 tiles of 2048 px an actor had
1.18 GB, with one heap 0.78 GB. Other systems do not look at it.
"""
