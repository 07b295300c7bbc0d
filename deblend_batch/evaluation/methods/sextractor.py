"""The SExtractor program itself (Bertin & Arnouts 1996) as a baseline, where it is installed.

Stamps are laid out on mosaics, one run of the program for hundreds of them. Each is divided by its
own noise, so that one threshold serves all, and wide empty gaps keep them apart. SExtractor shares out
the pixels between deblended objects by lot: a flux moves by a per cent or so from mosaic to mosaic.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sep
from astropy.io import fits

from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.methods.baselines import COLD, HOT, Floats, Photometry
from deblend_batch.evaluation.methods.matching import match_limit_px, match_members

PROGRAMS = ("source-extractor", "sex", "sextractor")
"""Names under which distributions install it."""

_GAP_PX = 64
_ACROSS = 16
_COLUMNS = ("X_IMAGE", "Y_IMAGE", "FLUX_AUTO")
_FILTER = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"
_TIMEOUT_S = 600


def find_program() -> str | None:
    """Return the path of the installed program, None where there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def require_program() -> str:
    """Return the path of the installed program."""
    program = find_program()
    if program is None:
        raise EvaluationError(
            "SExtractor is not installed; apt install source-extractor, or leave this baseline out"
        )
    return program


def run_sextractor(stamps: Floats, member_yx: Floats, radius_px: Floats) -> Photometry:
    """Measure stamps with the SExtractor program.

    The seed work's settings: a cold pass, and a hot one for stamps in which the cold pass found
    fewer than two objects; background not subtracted. Fluxes are ``FLUX_AUTO`` with the neighbours'
    pixels corrected for; objects are matched to the true positions within 0.5 Re + 3 px.

    Parameters
    ----------
    stamps : ndarray of float, shape (n, y, x)
        Images.
    member_yx : ndarray of float, shape (n, 2, 2)
        True positions, (pair, member, (y, x)), px.
    radius_px : ndarray of float, shape (n, 2)
        True half-light radii, px.
    """
    program = require_program()
    objects = _extract(program, stamps, COLD)
    again = np.flatnonzero([len(found) < 2 for found in objects])
    for row, found in zip(again, _extract(program, stamps[again], HOT), strict=True):
        objects[row] = found
    limits = match_limit_px(radius_px)
    flux = [_matched(*row) for row in zip(objects, member_yx, limits, strict=True)]
    return Photometry(
        np.array(flux, np.float64).reshape(-1, 2), np.array([len(found) for found in objects])
    )


def _matched(objects: Floats, member_yx: Floats, limit_px: Floats) -> Floats:
    rows = match_members(objects[:, :2], member_yx, limit_px)
    flux: Floats = np.append(objects[:, 2], np.nan)[rows]
    return flux


def _extract(program: str, stamps: Floats, settings: dict[str, float]) -> list[Floats]:
    """Return the objects of each stamp, shape (m, 3): y, x, flux."""
    objects: list[Floats] = []
    for start in range(0, len(stamps), _ACROSS**2):
        objects += _extract_mosaic(program, stamps[start : start + _ACROSS**2], settings)
    return objects


def _extract_mosaic(program: str, stamps: Floats, settings: dict[str, float]) -> list[Floats]:
    height, width = stamps.shape[1] + _GAP_PX, stamps.shape[2] + _GAP_PX
    shape_yx = (math.ceil(len(stamps) / _ACROSS) * height, _ACROSS * width)
    corners = [((k // _ACROSS) * height, (k % _ACROSS) * width) for k in range(len(stamps))]
    corners = [(y + _GAP_PX // 2, x + _GAP_PX // 2) for y, x in corners]
    noise = [sep.Background(np.ascontiguousarray(s, np.float32)).globalrms for s in stamps]
    image = np.zeros(shape_yx, np.float32)
    for stamp, rms, (y, x) in zip(stamps, noise, corners, strict=True):
        image[y : y + stamp.shape[0], x : x + stamp.shape[1]] = stamp / rms
    found = _run(program, image, settings)
    cell = (found[:, 0] // height).astype(int) * _ACROSS + (found[:, 1] // width).astype(int)
    return [(found[cell == k] - [y, x, 0]) * [1, 1, noise[k]] for k, (y, x) in enumerate(corners)]


def _run(program: str, image: Floats, settings: dict[str, float]) -> Floats:
    """Run the program on one image; return (m, 3): y, x (0-based), flux."""
    with tempfile.TemporaryDirectory(prefix="deblend-sextractor-") as name:
        folder = Path(name)
        fits.writeto(folder / "image.fits", image)
        (folder / "columns.param").write_text("\n".join(_COLUMNS) + "\n")
        (folder / "filter.conv").write_text(_FILTER)
        (folder / "config.sex").write_text(_config(settings, image.shape))
        try:
            # The program is the one found on the PATH and every argument is ours.
            subprocess.run(  # noqa: S603
                [program, "image.fits", "-c", "config.sex"],
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise EvaluationError(f"{program}: {_reason(error)}; check the installation") from error
        words = (folder / "objects.cat").read_text().split()
    rows = np.array(words, np.float64).reshape(-1, len(_COLUMNS))
    return np.stack([rows[:, 1] - 1, rows[:, 0] - 1, rows[:, 2]], axis=1)


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _config(settings: dict[str, float], shape_yx: tuple[Any, ...]) -> str:
    """Write the seed's settings; all that is not named keeps SExtractor's default."""
    values = {
        "CATALOG_NAME": "objects.cat",
        "CATALOG_TYPE": "ASCII",
        "PARAMETERS_NAME": "columns.param",
        "FILTER_NAME": "filter.conv",
        "THRESH_TYPE": "ABSOLUTE",
        "DETECT_THRESH": settings["thresh"],
        "ANALYSIS_THRESH": settings["thresh"],
        "DETECT_MINAREA": settings["minarea"],
        "DEBLEND_NTHRESH": settings["deblend_nthresh"],
        "DEBLEND_MINCONT": settings["deblend_cont"],
        "BACK_TYPE": "MANUAL",
        "BACK_VALUE": 0.0,
        "SATUR_LEVEL": 1e20,
        "MEMORY_PIXSTACK": max(300_000, math.prod(shape_yx)),
        "MEMORY_BUFSIZE": shape_yx[0],
        "MEMORY_OBJSTACK": 60_000,
        "VERBOSE_TYPE": "QUIET",
    }
    return "".join(f"{key} {value}\n" for key, value in values.items())
