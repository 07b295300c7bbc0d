"""Detection of a whole field: tile by tile on Ray tasks, each source found exactly once."""

from __future__ import annotations
