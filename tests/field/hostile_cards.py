"""Cards that look like those of a WCS: its keywords, with values of every kind and size."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support import WCS_CARDS

PROJECTIONS = [
    *("AZP", "SZP", "TAN", "STG", "SIN", "ARC", "ZPN", "ZEA", "AIR", "CYP", "CEA", "CAR", "MER"),
    *("SFL", "PAR", "MOL", "AIT", "BON", "PCO", "TSC", "CSC", "QSC", "HPX", "XPH", "TPV", "GLS"),
    *(f"CO{which}" for which in "DEOP"),
    *("NCP", "TNX", "ZPX", "TPD", "TAB"),
]
_WORDS = [
    *("NAXIS", "WCSAXES", "RADESYS", "EQUINOX", "EPOCH", "LONPOLE", "LATPOLE", "MJD-OBS"),
    *("CPDIS1", "AMDX1", "AMDY1", "PLTRAH", "PLTDECSN", "PLTSCALE", "PPO3", "WAT1_001"),
    *("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER", "PROJP1", "RESTFRQ", "CTYPE1A", "CRVAL1Z"),
]
_OF_AXES = ["CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT", "CROTA"]

_axis = st.integers(1, 3)
_small = st.integers(0, 9)
_keyword = st.one_of(
    st.sampled_from(_WORDS),
    st.builds("{}{}".format, st.sampled_from(_OF_AXES), _axis),
    st.builds("{}{}_{}".format, st.sampled_from(["CD", "PC", "CQ"]), _axis, _axis),
    st.builds("PV{}_{}".format, _axis, st.integers(0, 41)),
    st.builds("PS{}_{}".format, _axis, _small),
    st.builds("{}_{}_{}".format, st.sampled_from(["A", "B", "AP", "BP"]), _small, _small),
)
_number = st.one_of(
    st.floats(allow_subnormal=True),
    st.floats(-400, 400),
    st.floats(-1e-3, 1e-3),
    st.integers(-2, 12),
    st.sampled_from([0.0, 90.0, 180.0, 1e308, -1e308, 5e-324, 10**69, 2_000_000]),
)
_text = st.one_of(
    st.sampled_from(
        ["deg", "arcsec", "mas", "m/s", "FK5", "FK4", "ICRS", "LOOKUP", "J2000", "", "+"]
    ),
    st.builds(
        "{}-{}{}".format,
        st.sampled_from(["RA--", "DEC-", "GLON", "GLAT", "ELON", "TLON", "MALN", "FREQ"]),
        st.sampled_from(PROJECTIONS),
        st.sampled_from(["", "-SIP"]),
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)


@st.composite
def hostile_cards(draw: st.DrawFn) -> dict[str, Any]:
    """Draw cards: a sound WCS in any projection, with up to a dozen cards put over it."""
    projection, sip = draw(st.sampled_from(PROJECTIONS)), draw(st.sampled_from(["", "-SIP"]))
    cards: dict[str, Any] = {
        **WCS_CARDS,
        "CTYPE1": f"RA---{projection}{sip}",
        "CTYPE2": f"DEC--{projection}{sip}",
    }
    if projection in {"TPV", "ZPN"}:
        cards |= {"PV1_1": 1.0, "PV2_1": 1.0}
    if sip or draw(st.booleans()):
        order = draw(_small)
        cards |= {"A_ORDER": order, "B_ORDER": order}
        terms = st.builds(
            "{}_{}_{}".format, st.sampled_from("AB"), st.integers(0, 5), st.integers(0, 4)
        )
        cards |= draw(st.dictionaries(terms, st.floats(-1e-5, 1e-5), max_size=8))
    value = st.one_of(_number, _number, _text, st.booleans())
    return cards | draw(
        st.dictionaries(_keyword, value, max_size=draw(st.sampled_from([0, 1, 3, 12])))
    )
