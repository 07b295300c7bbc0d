"""What may go better next time is told from what will not, and from what a client has tried again itself."""

from __future__ import annotations

from typing import Any

import pytest

from deblend_batch import storage
from deblend_batch.errors import StorageError, TransientStorageError
from deblend_batch.storage.responses import code_of, is_transient, is_unrepeated, status_of

exceptions = pytest.importorskip("botocore.exceptions")
aiohttp = pytest.importorskip("aiohttp")
errors = pytest.importorskip("s3fs.errors")


def refusal(status: int, code: str) -> Exception:
    """Return what s3fs raises for a server's refusal."""
    response = {
        "Error": {"Code": code, "Message": "So says the server."},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    translated: Exception = errors.translate_boto_error(exceptions.ClientError(response, "Put"))
    return translated


def http_answer(status: int) -> Exception:
    """Return what fsspec raises for an HTTP server's refusal."""
    info: Any = aiohttp.RequestInfo("http://x", "GET", {}, "http://x")
    answer: Exception = aiohttp.ClientResponseError(info, (), status=status)
    return answer


@pytest.mark.parametrize(
    ("error", "transient", "unrepeated"),
    [
        (refusal(503, "SlowDown"), True, False),
        (refusal(500, "InternalError"), True, False),
        (refusal(409, "ConditionalRequestConflict"), True, False),
        (refusal(400, "IncompleteBody"), True, True),
        (refusal(400, "BadDigest"), True, True),
        (refusal(400, "InvalidToken"), False, False),
        (refusal(405, "MethodNotAllowed"), False, False),
        (refusal(301, "PermanentRedirect"), False, False),
        (exceptions.EndpointConnectionError(endpoint_url="x", error="y"), True, False),
        (exceptions.ConnectionClosedError(endpoint_url="x", error="y"), True, False),
        (exceptions.ReadTimeoutError(endpoint_url="x", error="y"), True, False),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), True, True),
        (exceptions.ResponseStreamingError(error="y"), True, True),
        (exceptions.NoCredentialsError(), False, False),
        (exceptions.ProfileNotFound(profile="x"), False, False),
        (aiohttp.ClientPayloadError("half"), True, True),
        (aiohttp.ServerDisconnectedError(), True, True),
        (http_answer(502), True, True),
        (http_answer(410), False, False),
        (TimeoutError("late"), True, False),
        (KeyError("x"), False, False),
    ],
    ids=repr,
)
def test_failures_are_told_apart(error: Exception, transient: bool, unrepeated: bool) -> None:
    assert (is_transient(error), is_unrepeated(error)) == (transient, unrepeated)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (refusal(503, "SlowDown"), TransientStorageError, "u: .*So says the server.; check"),
        (refusal(400, "InvalidToken"), StorageError, "u: .*So says the server.; check the URL"),
        (
            refusal(400, "ExpiredToken"),
            StorageError,
            r"u: permission denied \(ExpiredToken\); check",
        ),
        (exceptions.NoCredentialsError(), StorageError, "u: Unable to locate credentials; check"),
    ],
    ids=["transient", "token", "expired", "no credentials"],
)
def test_each_is_one_line(error: Exception, kind: type[Exception], message: str) -> None:
    found = storage.translate("u", error)
    assert type(found) is kind
    with pytest.raises(kind, match=rf"^{message}"):
        raise found


def test_the_server_s_words_are_found() -> None:
    assert status_of(refusal(412, "PreconditionFailed")) == 412
    assert code_of(refusal(503, "SlowDown")) == "SlowDown"
    assert code_of(refusal(403, "403")) is None
    assert status_of(ValueError("x")) is None
    assert code_of(ValueError("x")) is None
