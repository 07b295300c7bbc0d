"""Whether a Ray cluster is named, told without importing Ray."""

from __future__ import annotations

import os
import sys


def is_named() -> bool:
    """Tell whether this process would join a cluster: by ``RAY_ADDRESS``, as a Ray job, or since it has."""
    named = any(os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"))
    return named or has_joined()


def has_joined() -> bool:
    """Tell whether this process has joined one."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
