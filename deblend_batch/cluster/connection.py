"""The Ray cluster of a run: joined where there is one, raised on this machine where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray


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
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="error")
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
