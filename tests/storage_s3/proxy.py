"""A proxy in front of an S3 server that slows, refuses, cuts and counts requests.

What a request meets depends on the seed, its method, its target and how often that was asked for before, not
on what else is under way: a run meets the same faults however its requests interleave.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAULTS = ("refused", "reset", "half_request", "lost_answer", "half_answer")
_BODILESS = frozenset({b"204", b"304"})
_REFUSAL = b"<Error><Code>%s</Code><Message>As this test wants it.</Message></Error>"


@dataclass(frozen=True)
class Faults:
    """What goes wrong, with which probability; the probabilities add up to 1 at most.

    Parameters
    ----------
    methods : sequence of str
        The methods that it happens to.
    refused : float
        An answer of its own, ``refusal``; the server sees nothing.
    reset : float
        The connection is reset; the server sees nothing.
    half_request : float
        The server gets half of the body, then a reset, as does the client.
    lost_answer : float
        The server does what was asked; instead of its answer the client gets a reset.
    half_answer : float
        The client gets half of the answer's body, then a reset.
    refusal : str
        Status and code of that answer.
    only : str
        The part that a target must have for any of this.
    """

    methods: Sequence[str]
    refused: float = 0.0
    reset: float = 0.0
    half_request: float = 0.0
    lost_answer: float = 0.0
    half_answer: float = 0.0
    refusal: str = "503 SlowDown"
    only: str = ""

    def draw(self, method: str, path: str, dice: random.Random) -> str | None:
        """Return the fault that a request meets, by name, or None."""
        if method not in self.methods or self.only not in path:
            return None
        at = dice.random()
        for name in _FAULTS:
            chance = getattr(self, name)
            if at < chance:
                return name
            at -= chance
        return None


@dataclass(frozen=True)
class _Message:
    """A request or an answer: its lines as they came, and its body, still chunked if it was."""

    lines: tuple[bytes, ...]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        for line in self.lines[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name:
                return value.strip()
        return None

    def head(self, without: Sequence[bytes], *more: bytes) -> bytes:
        kept = [line for line in self.lines if line.partition(b":")[0].lower() not in without]
        return b"\r\n".join([*kept, *more, b"", b""])


class Proxy:
    """Forwards to one server, in a thread of its own, for as long as its context is open.

    Parameters
    ----------
    endpoint : str
        URL of the server.
    seed : int
        Of the faults.

    Attributes
    ----------
    ignores_conditions : bool
        Whether it says that conditional writes were done which the server refused.
    largest : Counter
        Bytes of the largest answer, by path.
    """

    def __init__(self, endpoint: str, seed: int = 0) -> None:
        parts = urlsplit(endpoint)
        self._server = (parts.hostname or "", parts.port or 80)
        self._seed = seed
        self._asked: Counter[tuple[str, str]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.faults: tuple[Faults, ...] = ()
        self.latency_s = 0.0
        self.ignores_conditions = False
        self.largest: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.endpoint = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def through(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return storage options that lead here, those of single URLs too."""
        own = {url: self.through(given) for url, given in options.items() if "://" in url}
        return {**options, **own, "client_kwargs": {"endpoint_url": self.endpoint}}

    def forget(self) -> None:
        """Count from zero."""
        self._asked.clear()
        self.met.clear()

    def count(self, method: str, prefix: str = "/") -> int:
        """Return the number of requests with a method for targets that begin with ``prefix``.

        Parameters
        ----------
        method : str
            Such as ``GET``; ``LIST`` for a page of a listing, which is a ``GET`` of its bucket.
        prefix : str
            Of ``/bucket/key``.

        Returns
        -------
        int
            Those that a fault met count too.
        """
        asked = dict(self._asked)
        return sum(
            times
            for (verb, target), times in asked.items()
            if verb == method and target.startswith(prefix)
        )

    def most_asked(self) -> int:
        """Return how often one object was asked for or written, at most; who lists asks for none."""
        asked = dict(self._asked)
        return max((times for (verb, _), times in asked.items() if verb != "LIST"), default=0)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._client, "127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        request = await _read(reader, writer)
        method, target = (part.decode() for part in request.lines[0].split(b" ")[:2])
        faults, fault = self._meet(method, target)
        await asyncio.sleep(self.latency_s)
        if faults is not None and fault == "refused":
            writer.write(_refusal(faults.refusal, bodiless=method == "HEAD"))
            return True
        if fault == "reset":
            return _reset(writer)
        answer = await self._ask(request, half=fault == "half_request")
        if answer is None or fault == "lost_answer":
            return _reset(writer)
        answer = self._noted(target, answer)
        head = answer.head([b"connection"])
        if fault == "half_answer" and method == "GET":
            writer.write(head + answer.body[: len(answer.body) // 2])
            await writer.drain()
            return _reset(writer)
        writer.write(head + answer.body)
        await writer.drain()
        return True

    def _meet(self, method: str, target: str) -> tuple[Faults | None, str | None]:
        """Count a request, and draw what it meets."""
        path, _, query = target.partition("?")
        verb = "LIST" if "list-type" in query else method
        times = self._asked[verb, unquote(path)]
        self._asked[verb, unquote(path)] += 1
        for faults in self.faults:
            dice = random.Random(f"{self._seed} {verb} {path} {times}")
            if fault := faults.draw(verb, path, dice):
                self.met[fault] += 1
                return faults, fault
        return None, None

    def _noted(self, target: str, answer: _Message) -> _Message:
        """Note the size of an answer; say that a write was done that a condition of its own forbade."""
        path = unquote(target.partition("?")[0])
        self.largest[path] = max(self.largest[path], len(answer.body))
        if self.ignores_conditions and answer.lines[0].split(b" ")[1] == b"412":
            return _Message((b"HTTP/1.1 200 OK", b"Content-Length: 0", b'ETag: "0"'), b"")
        return answer

    async def _ask(self, request: _Message, *, half: bool) -> _Message | None:
        """Send a request to the server; None where it does not answer, or was given only a half."""
        try:
            reader, writer = await asyncio.open_connection(*self._server)
        except ConnectionError:
            return None
        # The Host header stays the client's: it signed that.
        writer.write(request.head([b"connection", b"expect"], b"Connection: close"))
        try:
            if half:
                writer.write(request.body[: len(request.body) // 2])
                await writer.drain()
                _reset(writer)
                return None
            writer.write(request.body)
            await writer.drain()
            return await _read(reader, bodiless=request.lines[0].startswith(b"HEAD "))
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.close()


async def _read(
    reader: asyncio.StreamReader,
    client: asyncio.StreamWriter | None = None,
    *,
    bodiless: bool = False,
) -> _Message:
    """Read a message; ``client`` is told to go on where it waits for that before it sends a body."""
    head = await reader.readuntil(b"\r\n\r\n")
    message = _Message(tuple(head[:-4].split(b"\r\n")), b"")
    if bodiless or message.lines[0].split(b" ")[1] in _BODILESS:
        return message
    if client is not None and message.header(b"expect"):
        client.write(_CONTINUE)
    if message.header(b"transfer-encoding") == b"chunked":
        body, size = b"", 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            body += line + await reader.readexactly(size + 2)
        return _Message(message.lines, body)
    length = int(message.header(b"content-length") or 0)
    return _Message(message.lines, await reader.readexactly(length))


def _refusal(refusal: str, *, bodiless: bool) -> bytes:
    status, code = refusal.encode().split(b" ")
    body = b"" if bodiless else _REFUSAL % code
    lines = (b"HTTP/1.1 %s %s" % (status, code), b"Content-Type: application/xml")
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """End a connection with a reset, not an orderly close; return False."""
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
