"""Flags of a detection: SExtractor's where it has one, ``sep``'s of the aperture, and our own from 256 on."""

from __future__ import annotations

from typing import Final

MERGED: Final = 2
"""Deblended from another source."""
SATURATED: Final = 4
"""Holds saturated pixels, or a flat top where nobody says which are."""
TRUNCATED: Final = 8
"""Reaches over the edge of the image."""
NEAR_BRIGHT_STAR: Final = 256
"""Within the halo of a saturated star, and above it."""
LARGE: Final = 512
"""Reaches beyond the largest stamp."""
