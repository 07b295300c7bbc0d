"""Files in the layouts of surveys whose files lie nowhere at hand, after those surveys' documents.

All show one sky, in units of its noise; what a layout is for (planes, bits, units, names of files) is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

_SKIPPED_ROWS = 60
"""Rows at the lower edge that no exposure reached."""


class Sky(NamedTuple):
    """One sky, as all files show it.

    Parameters
    ----------
    image : ndarray of float32, shape (y, x)
        Its pixels, with noise of 1.
    found : ndarray of bool, shape (y, x)
        Pixels above the noise, which some surveys mark.
    psf_sigma_px : float
        Of the Gaussian that point sources are.
    """

    image: NDArray[np.float32]
    found: NDArray[np.bool_]
    psf_sigma_px: float

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Pixels without data."""
        unseen = np.zeros(self.image.shape, np.bool_)
        unseen[:_SKIPPED_ROWS] = True
        return unseen


class Made(NamedTuple):
    """The image of a survey, as written.

    Parameters
    ----------
    survey : str
        Name of its preset.
    image : Path
        The file; its planes lie in it or beside it.
    unit : float
        Image units of one unit of the sky's fluxes.
    """

    survey: str
    image: Path
    unit: float


def _header(shape: tuple[int, int], scale_arcsec: float, **cards: Any) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    wcs.wcs.cd = np.array([[-scale_arcsec, 0], [0, scale_arcsec]]) / 3600
    return _with(wcs.to_header(), **cards)


def _with(header: fits.Header, **cards: Any) -> fits.Header:
    header = header.copy()
    header.update(cards)
    return header


def des_y6(sky: Sky, folder: Path) -> Made:
    """Write a coadd of the Dark Energy Survey: three planes in one packed file, PSFEx beside it."""
    header = _header(sky.image.shape, 0.263, MAGZERO=30.0, BAND="i", GAIN=4.0)
    # A coadd marks what no exposure reached, and its weight is zero there.
    planes = {
        "SCI": np.where(sky.unseen, 0, sky.image).astype(np.float32),
        "MSK": sky.unseen.astype(np.int32),
        "WGT": (~sky.unseen).astype(np.float32),
    }
    hdus = [fits.PrimaryHDU()]
    for name, plane in planes.items():
        packing = "GZIP_2" if plane.dtype.kind == "f" else "RICE_1"
        hdus.append(
            fits.CompImageHDU(plane, header, name, compression_type=packing, quantize_level=0)
        )
    path = folder / "DES0131-3206_r4920p01_i.fits.fz"
    fits.HDUList(hdus).writeto(path)
    _psfex(folder / "DES0131-3206_r4920p01_i_psfcat.psf", sky)
    return Made("des-y6", path, 1.0)


def _psfex(path: Path, sky: Sky, sample: float = 0.5, edge: int = 45) -> None:
    y, x = np.indices((edge, edge)) - edge // 2
    kernel = np.exp(-(y**2 + x**2) / (2 * (sky.psf_sigma_px / sample) ** 2))
    terms = np.stack([kernel / kernel.sum(), *np.zeros((2, edge, edge))]).astype(np.float32)
    column = fits.Column("PSF_MASK", f"{terms.size}E", dim=f"({edge},{edge},3)", array=terms[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update(
        LOADED=60, ACCEPTED=60, CHI2=1.0, PSF_FWHM=2.3548 * sky.psf_sigma_px, PSF_SAMP=sample
    )
    table.header.update(PSFNAXIS=3, PSFAXIS1=edge, PSFAXIS2=edge, PSFAXIS3=3)
    table.header.update(POLNAXIS=2, POLNGRP=1, POLDEG1=1)
    for axis, name, length in zip(
        (1, 2), ("X_IMAGE", "Y_IMAGE"), sky.image.shape[::-1], strict=True
    ):
        half = length / 2
        table.header.update(
            {f"POLGRP{axis}": 1, f"POLNAME{axis}": name}
            | {f"POLZERO{axis}": half, f"POLSCAL{axis}": half}
        )
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def kids_dr5(sky: Sky, folder: Path) -> Made:
    """Write a coadd of KiDS: fluxes in units of that of magnitude 0, weight and mask beside it."""
    unit = 1e-11
    header = _header(sky.image.shape, 0.2)
    mask = np.zeros(sky.image.shape, np.int16)
    mask[:, :300] |= 1 << 4  # the halo of a bright star: the pixels are good
    mask[sky.unseen] |= 1 << 7
    planes = {
        "sci": np.where(sky.unseen, 0, sky.image * unit).astype(np.float32),
        "wei": (~sky.unseen / unit**2).astype(np.float32),
        "msk": mask,
    }
    for name, plane in planes.items():
        fits.PrimaryHDU(plane, header).writeto(folder / f"KiDS_DR5.0_180.0_-0.5_r_{name}.fits")
    return Made("kids-dr5", folder / "KiDS_DR5.0_180.0_-0.5_r_sci.fits", unit)


def panstarrs(sky: Sky, folder: Path) -> Made:
    """Write a stack of Pan-STARRS: asinh magnitudes of counts, variance and mask beside it."""
    header = _header(sky.image.shape, 0.25, EXPTIME=900.0)
    header["HIERARCH FPA.ZP"] = 25.0
    header["HIERARCH FPA.TELESCOPE"] = "PS1"
    soften, offset = 300.0, 12.0
    # Waters et al. 2020, equation 15 turned round: magnitudes of what stands over the offset.
    magnitudes = 2.5 * np.log10(np.e) * np.arcsinh((sky.image - offset) / (2 * soften))
    mask = np.zeros(sky.image.shape, np.uint16)
    mask[sky.unseen] = 1 << 3
    mask[sky.found] |= 1 << 7  # SUSPECT: a remark
    stem = folder / "rings.v3.skycell.1234.056.stk.i.unconv"
    scaled = _with(header, BSOFTEN=soften, BOFFSET=offset)
    nothing = np.float32(np.nan)
    for name, plane, cards in (
        (".fits", np.where(sky.unseen, nothing, magnitudes).astype(np.float32), scaled),
        (".wt.fits", np.where(sky.unseen, nothing, 1).astype(np.float32), header),
        (".mask.fits", mask, header),
    ):
        hdu = fits.CompImageHDU(plane, cards, compression_type="GZIP_2", quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(f"{stem}{name}")
    return Made("panstarrs", Path(f"{stem}.fits"), 1.0)


def rubin_dp1(sky: Sky, folder: Path) -> Made:
    """Write a deep coadd of Rubin's first preview: afw's planes, whose bits MP_* cards name."""
    shape = sky.image.shape
    mask = (sky.unseen << 8 | sky.found << 5).astype(np.int32)
    bits = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "NO_DATA": 8}
    named = {f"HIERARCH MP_{name}": bit for name, bit in bits.items()}
    nothing = np.float32(np.nan)
    image = np.where(sky.unseen, nothing, sky.image)
    variance = np.where(sky.unseen, np.float32(np.inf), np.float32(1))
    planes: tuple[tuple[str, NDArray[Any], dict[str, Any]], ...] = (
        ("IMAGE", image, {"BUNIT": "nJy"}),
        ("MASK", mask, named),
        ("VARIANCE", variance, {"BUNIT": "nJy**2"}),
    )
    hdus = [fits.PrimaryHDU()]
    for name, plane, cards in planes:
        hdus.append(fits.ImageHDU(plane, _header(shape, 0.2, EXTTYPE=name, **cards), name))
    path = folder / "deep_coadd_lsst_cells_v1_5063_14_r.fits"
    fits.HDUList(hdus).writeto(path)
    return Made("rubin-dp1", path, 1.0)


def roman_l3(sky: Sky, folder: Path) -> Made:
    """Write a mosaic of Roman by the mission's own data models."""
    import astropy.units as u
    import gwcs
    from astropy.coordinates import ICRS
    from astropy.modeling import models
    from gwcs import coordinate_frames as frames
    from roman_datamodels.datamodels import MosaicModel

    unit, degrees = 0.01, 0.055 / 3600
    shape = sky.image.shape
    model = MosaicModel.create_fake_data(shape=shape)
    model.data = np.where(sky.unseen, np.nan, sky.image * unit).astype(np.float32)
    model.err = np.where(sky.unseen, np.nan, unit).astype(np.float32)
    model.weight = (~sky.unseen).astype(np.float32)
    model.context = np.broadcast_to(~sky.unseen, (1, *shape)).astype(np.uint32)
    for name in ("var_poisson", "var_rnoise"):
        model[name] = np.full(shape, unit**2 / 2, np.float32)
    plane = models.Shift(-shape[1] / 2) & models.Shift(-shape[0] / 2)
    project = models.Scale(-degrees) & models.Scale(degrees) | models.Pix2Sky_TAN()
    frame = frames.Frame2D(name="detector", unit=(u.pix, u.pix))
    world = frames.CelestialFrame(reference_frame=ICRS(), name="icrs", unit=(u.deg, u.deg))
    turn = models.RotateNative2Celestial(150.0, 2.0, 180.0)
    model.meta.wcs = gwcs.WCS([(frame, plane | project | turn), (world, None)])
    model.meta.instrument.optical_element = "F158"
    path = folder / "r00001_p_full_270p65x48y69_f158_coadd.asdf"
    model.save(path, all_array_compression="lz4")
    return Made("roman-l3", path, unit)


MAKERS: tuple[Callable[[Sky, Path], Made], ...] = (
    rubin_dp1,
    des_y6,
    kids_dr5,
    roman_l3,
    panstarrs,
)
"""One for each layout."""
