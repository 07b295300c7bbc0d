"""Whether what ``RAY_ADDRESS`` names can be joined, told in seconds; Ray takes a quarter of an hour."""

from __future__ import annotations

import os
import re
import socket
import time

from deblend_batch.errors import ConfigError

_WAIT_SECONDS = 20.0
"""How long a head may take that is only starting."""
_TRY_SECONDS = 5.0
_PLACE = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""With which HTTP/2 begins, and so gRPC, which Ray speaks; the answer is a frame of settings."""
_FRAME_BYTES, _TYPE, _SETTINGS = 9, 3, 4


def check_address(
    address: str, wait_seconds: float | None = None, shown: str | None = None
) -> None:
    """Refuse an address that is no Ray head's, or at which nobody answers as one.

    Parameters
    ----------
    address : str
        Of ``RAY_ADDRESS``.
    wait_seconds : float, optional
        How long to try; 20 if absent.
    shown : str, optional
        What messages say of it, if not the address itself.
    """
    if address == "local":
        return
    shown = shown or address
    scheme, separator, _ = address.partition("://")
    if separator:
        what = {
            "http": "the address of the dashboard, to which 'ray job submit' goes",
            "https": "the address of the dashboard, to which 'ray job submit' goes",
            "ray": "an address of Ray Client, through which no run goes",
        }.get(scheme, "an address of another kind")
        raise _error(shown, f"is {what}", "give HOST:PORT of the head")
    place = _PLACE.fullmatch(address)
    if place is None or not 0 < int(place["port"]) < 1 << 16:
        raise _error(shown, "is no address", "give HOST:PORT of the head")
    deadline = time.monotonic() + (_WAIT_SECONDS if wait_seconds is None else wait_seconds)
    while True:
        problem = _problem(place["host"].strip("[]"), int(place["port"]))
        if problem is None:
            return
        if time.monotonic() + 1 > deadline:
            raise _error(shown, f"cannot be reached ({problem})", "start Ray there")
        time.sleep(1)


def _problem(host: str, port: int) -> str | None:
    """Say why nobody answers as Ray does; None where somebody does."""
    try:
        with socket.create_connection((host, port), _TRY_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
                return None
            connection.settimeout(_TRY_SECONDS)
            connection.sendall(_GREETING)
            answer = connection.recv(_FRAME_BYTES)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    spoken = len(answer) == _FRAME_BYTES and answer[_TYPE] == _SETTINGS
    return None if spoken else "what answers there is not Ray"


def _error(address: str, what: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"RAY_ADDRESS ({address}) {what}; {remedy}, or unset RAY_ADDRESS to work on this machine"
    )
