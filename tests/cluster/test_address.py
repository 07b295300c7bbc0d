"""What ``RAY_ADDRESS`` names is looked at in seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deblend_batch.cluster import address as addresses
from deblend_batch.cluster import connection
from deblend_batch.cluster.address import check_address
from deblend_batch.cluster.connection import _session_folder
from deblend_batch.errors import ConfigError


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that gives one answer to whoever asks."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "http://127.0.0.1:8265",
            "is the address of the dashboard, to which 'ray job submit' goes",
        ),
        ("ray://127.0.0.1:10001", "is an address of Ray Client"),
        ("etcd://a:1", "is an address of another kind"),
        ("head", "is no address; give HOST:PORT"),
        ("head:port", "is no address"),
        ("head:99999", "is no address"),
        ("a b:1", "is no address"),
        ("", "is no address"),
    ],
)
def test_what_is_no_head_s_address_is_refused_at_once(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^RAY_ADDRESS .*{message}.*unset RAY_ADDRESS"):
        check_address(address)


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    before = time.monotonic()
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}\) cannot be reached .*start Ray"):
        check_address(f"127.0.0.1:{port}", wait_seconds=0.5)
    assert time.monotonic() - before < 5


def test_somebody_else_answers() -> None:
    with (
        answering(b"HTTP/1.1 400 Bad Request\r\n") as address,
        pytest.raises(ConfigError, match="what answers there is not Ray"),
    ):
        check_address(address, wait_seconds=0.5)


def test_a_head_answers() -> None:
    with answering(b"\0\0\x06\x04\0\0\0\0\0" + bytes(6)) as address:
        check_address(address)
    check_address("local")


def test_the_last_head_of_this_machine_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which heads run here is not the test's to say, so Ray's answer is given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(connection, "canonicalize_bootstrap_address", lambda _: gone)
    monkeypatch.setattr(addresses, "_WAIT_SECONDS", 0.5)
    with pytest.raises(
        ConfigError, match=rf"^RAY_ADDRESS \(auto, which is {gone}\) cannot be reached"
    ):
        connection._joined("auto")
    with answering(b"\0\0\x06\x04\0\0\0\0\0" + bytes(6)) as there:
        monkeypatch.setattr(connection, "canonicalize_bootstrap_address", lambda _: there)
        assert connection._joined("auto") == {"address": there}

    def none(_: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(connection, "canonicalize_bootstrap_address", none)
    with pytest.raises(
        ConfigError, match=r"^RAY_ADDRESS \(auto\): finds no head .*; give HOST:PORT"
    ):
        connection._joined("auto")


def test_sockets_fit_into_the_session_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/data/tmp")
    assert _session_folder() is None
    monkeypatch.setenv("TMPDIR", "/data/" + 60 * "t")
    assert _session_folder() == "/tmp/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/data/" + 60 * "t")
    with pytest.raises(ConfigError, match=r"RAY_TMPDIR .* is too long for the sockets of Ray"):
        _session_folder()
