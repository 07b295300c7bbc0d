"""The Ray cluster of a run: joined where there is one, raised on this machine where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address

from deblend_batch.cluster.address import check_address
from deblend_batch.errors import ConfigError

_SHORT = "/tmp"  # noqa: S108  # Ray's own choice; it makes a folder of its own there
_LONGEST_SOCKET = "ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
_MAX_SOCKET_BYTES = 107
"""Of the path of a socket, on Linux."""


def draining_nodes() -> frozenset[str]:
    """Return the ids of the nodes that will be taken away, as spot nodes are after a notice.

    Ray has no public call for it; this is the one that Ray Train and Ray Data use.
    """
    return frozenset(ray._private.state.state.get_draining_nodes())  # noqa: SLF001


@contextmanager
def connected() -> Iterator[Mapping[str, float]]:
    """Join the cluster that ``RAY_ADDRESS`` names, else raise one on this machine."""
    # Calls that were in flight when a run stopped fail too; the driver has already said why.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's future default, taken now: it does not hide GPUs from processes that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _start()
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _start() -> None:
    """Join or raise a cluster; whatever Ray says of what is in its way becomes one line."""
    named = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if named:
        options |= _joined(named)
        what = f"RAY_ADDRESS ({named}): this cluster cannot be joined"
        remedy = "mend that, or unset RAY_ADDRESS to work on this machine"
    else:
        options |= {"address": "local", "include_dashboard": False, "_temp_dir": _session_folder()}
        what = "Ray cannot be started on this machine"
        remedy = "mend that, or work without it (--where local, --processes 1)"
    try:
        with _away_from_data():
            ray.init(**options)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{what} ({reason}); {remedy}") from error


def _joined(named: str) -> dict[str, Any]:
    """Return what names the head that is to be joined; look at it first, for Ray would wait very long."""
    if named != "auto":
        check_address(named)
        return {}
    try:  # the head that Ray has noted as its last on this machine, which may be gone
        found = canonicalize_bootstrap_address(named)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"RAY_ADDRESS (auto): finds no head ({reason}); give HOST:PORT, or unset RAY_ADDRESS to work on "
            "this machine"
        ) from error
    check_address(str(found), shown=f"auto, which is {found}")
    return {"address": found}


def _session_folder() -> str | None:
    """Return where Ray keeps its sessions; None for its own choice, if the paths of its sockets fit there."""
    own, system = os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR")
    folder = own or system or _SHORT
    if len(os.fsencode(os.path.join(folder, _LONGEST_SOCKET))) <= _MAX_SOCKET_BYTES:
        return None
    if own:
        most = _MAX_SOCKET_BYTES - len(_LONGEST_SOCKET) - 1
        raise ConfigError(
            f"RAY_TMPDIR ({own}): is too long for the sockets of Ray; give a folder of at most {most} bytes"
        )
    return os.path.join(_SHORT, "ray")


@contextmanager
def _away_from_data() -> Iterator[None]:
    """Leave the working folder, which Ray would put first where its workers look for modules.

    A file of a stranger's there may be called as a module is; it is data. A Ray job's folder is its user's
    code, which Ray has unpacked for that.
    """
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        yield
        return
    before = os.getcwd()
    os.chdir("/")
    try:
        yield
    finally:
        os.chdir(before)
