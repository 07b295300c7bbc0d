"""What a process asks of a store: requests where it is S3, opened and listed files where it is local."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCAL = {"open": "open", "os.listdir": "list", "os.scandir": "list"}


class Calls:
    """Counts calls, before and after :meth:`pause`."""

    def __init__(self) -> None:
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self._now = self.before

    def count(self, kind: str) -> None:
        """Count a call."""
        self._now[kind] += 1

    def pause(self) -> None:
        """Count what follows apart."""
        self._now = self.after


@contextmanager
def counted_calls(url: str) -> Iterator[Calls]:
    """Count this process's calls to the store of a URL for as long as the context is open.

    Parameters
    ----------
    url : str
        A local folder, or an ``s3://`` one.

    Yields
    ------
    Calls
        The counts by kind: ``open`` and ``list`` of a local folder; the method of an S3 request, with
        ``LIST`` for a page of a listing.
    """
    calls = Calls()
    yield from _of_s3(calls) if url.startswith("s3://") else _of_folder(calls, url)


def _of_folder(calls: Calls, folder: str) -> Iterator[Calls]:
    active = True  # an audit hook stays for ever

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event in _LOCAL and str(arguments[0]).startswith(folder):
            calls.count(_LOCAL[event])

    sys.addaudithook(hook)
    try:
        yield calls
    finally:
        active = False


def _of_s3(calls: Calls) -> Iterator[Calls]:
    from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]

    send = AIOHTTPSession.send

    async def counted(self: Any, request: Any) -> Any:
        calls.count("LIST" if "list-type" in request.url else request.method)
        return await send(self, request)

    AIOHTTPSession.send = counted
    try:
        yield calls
    finally:
        AIOHTTPSession.send = send
