"""Ray runs the code of whoever reaches it: the head answers on loopback, and to the token alone."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

WRONG = "0" * 64


def answer(url: str, token: str | None, body: dict[str, Any] | None = None) -> int:
    """Ask a server; return the status of its answer."""
    headers = {"Content-Type": "application/json"}
    headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code


def listening(port: int) -> set[str]:
    """Addresses on which any process listens to a port."""
    return {
        each.laddr.ip
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }


@pytest.fixture(scope="module")
def agent(head: Any) -> str:
    """URL of the agent of the head's node, which other nodes reach; it is there a little after the head."""
    for _ in range(120):
        with contextlib.suppress(urllib.error.URLError):
            answer(head.agent, None)
            return str(head.agent)
        time.sleep(0.5)
    pytest.fail("the agent did not start")


def test_the_dashboard_listens_on_loopback_alone(head: Any) -> None:
    port = urlsplit(head.dashboard).port
    assert port is not None
    assert listening(port) == {"127.0.0.1"}


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/jobs/", "/nodes?view=summary"])
def test_the_dashboard_answers_to_the_token_alone(head: Any, path: str) -> None:
    statuses = [answer(head.dashboard + path, token) for token in (None, WRONG)]
    if path != "/":  # the page itself is a program without data
        assert statuses == [401, 403]
    assert answer(head.dashboard + path, os.environ["RAY_AUTH_TOKEN"]) == 200


@pytest.mark.parametrize("token", [None, "", WRONG], ids=["no token", "empty", "wrong"])
def test_a_stranger_s_job_is_not_run(
    head: Any, agent: str, token: str | None, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    job = {"entrypoint": f"touch {touched}", "submission_id": "stranger"}
    for url in (f"{head.dashboard}/api/jobs/", f"{agent}/api/job_agent/jobs/"):
        assert answer(url, token, job) == (401 if token is None else 403)
    assert answer(f"{head.dashboard}/api/jobs/stranger", os.environ["RAY_AUTH_TOKEN"]) == 404
    assert not touched.exists()
