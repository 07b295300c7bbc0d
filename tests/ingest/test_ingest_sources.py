"""Which planes make a band."""

from __future__ import annotations

from typing import Any

import pytest

from deblend_batch.errors import ConfigError
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.ingest.sources import BandSource, list_sources, per_band

A, B = ImageRef("a.fits"), ImageRef("b.fits")


def listed(images: list[str], **options: Any) -> list[BandSource]:
    noise = {kind: options.get(kind, ()) for kind in ("rms", "weight", "variance")}
    return list_sources(images, options.get("hdu", ()), noise, options.get("mask", ()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "options", "expected"),
    [
        (["a.fits"], {}, [BandSource(A)]),
        (["a.fits[SCI]"], {}, [BandSource(ImageRef("a.fits", "SCI"))]),
        (
            ["a.fits"],
            {"hdu": ["Y", 2]},
            [BandSource(ImageRef("a.fits", "Y")), BandSource(ImageRef("a.fits", 2))],
        ),
        (
            ["a.fits", "b.fits"],
            {"hdu": ["SCI"], "rms": ["ERR"]},
            [
                BandSource(ImageRef("a.fits", "SCI"), ImageRef("a.fits", "ERR"), "rms"),
                BandSource(ImageRef("b.fits", "SCI"), ImageRef("b.fits", "ERR"), "rms"),
            ],
        ),
        (
            ["a.fits", "b.fits"],
            {"weight": ["wa.fits", "wb.fits[1]"], "mask": ["m.fits"]},
            [
                BandSource(A, ImageRef("wa.fits"), "weight", ImageRef("m.fits")),
                BandSource(B, ImageRef("wb.fits", 1), "weight", ImageRef("m.fits")),
            ],
        ),
        (
            ["a.fits"],
            {"hdu": ["1", "4"], "variance": ["3", "6"]},
            [
                BandSource(ImageRef("a.fits", 1), ImageRef("a.fits", 3), "variance"),
                BandSource(ImageRef("a.fits", 4), ImageRef("a.fits", 6), "variance"),
            ],
        ),
    ],
)
def test_planes_are_matched(
    images: list[str], options: dict[str, Any], expected: list[BandSource]
) -> None:
    assert listed(images, **options) == expected


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "no image to ingest"),
        (["a.fits", "b.fits"], {"hdu": [1, 2, 3]}, "--hdu: 3 HDUs for 2 images"),
        (["a.fits[1]"], {"hdu": [1]}, "names its HDU in brackets too"),
        (
            ["a.fits"],
            {"rms": ["R"], "weight": ["W"]},
            "--rms-hdu and --weight-hdu exclude each other",
        ),
        (["a.fits"], {"rms": ["R", "S"]}, "--rms-hdu: 2 planes for 1 bands"),
        (["a.fits"], {"hdu": [1, 2], "rms": ["R"]}, "--rms-hdu: bands share a plane"),
        (["a.fits"], {"mask": ["M", "N"]}, "--mask-hdu: 2 planes for 1 bands"),
    ],
)
def test_planes_that_do_not_match_are_refused(
    images: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        listed(images, **options)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), [None] * 3), ((1.0,), [1.0] * 3), ((1.0, 2.0, 3.0), [1.0, 2.0, 3.0])],
)
def test_options_spread_over_bands(values: tuple[float, ...], expected: list[float | None]) -> None:
    assert per_band(values, 3, "--zero-point") == expected


def test_options_that_do_not_spread_are_refused() -> None:
    with pytest.raises(ConfigError, match="--zero-point: 2 values for 3 bands; give one per band"):
        per_band((1.0, 2.0), 3, "--zero-point")
