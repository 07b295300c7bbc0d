"""What may go better next time is told from what will not, and from what a client has tried again itself."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from deblend_batch import storage
from deblend_batch.errors import NotFoundError, StorageError, TransientStorageError
from deblend_batch.storage.responses import code_of, is_transient, is_unrepeated, status_of

exceptions = pytest.importorskip("botocore.exceptions")
aiohttp = pytest.importorskip("aiohttp")
errors = pytest.importorskip("s3fs.errors")
gcs = pytest.importorskip("gcsfs.retry")
auth = pytest.importorskip("google.auth.exceptions")
api = pytest.importorskip("google.api_core.exceptions")
azure = pytest.importorskip("azure.core.exceptions")
process_storage_error = pytest.importorskip(
    "azure.storage.blob._shared.response_handlers"
).process_storage_error


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


def google(status: int, message: str = "Because.") -> Exception:
    """Return what gcsfs raises for a server's refusal."""
    body = json.dumps({"error": {"code": status, "message": message}})
    try:
        gcs.validate_response(status, body, "b/x")
    except Exception as error:  # noqa: BLE001  # of several classes
        return error
    raise AssertionError(status)


def azure_answer(status: int, code: str) -> Exception:
    """Return what Azure's client raises for a server's refusal."""
    response = SimpleNamespace(
        status_code=status,
        reason="Because.",
        headers={"x-ms-error-code": code},
        content_type="application/xml",
        http_response=None,
        context={},
        text=lambda *_: f"<Error><Code>{code}</Code><Message>Because.</Message></Error>",
    )
    refused = azure.HttpResponseError("Because.\nRequestId:1", response=response)
    with pytest.raises(azure.HttpResponseError, match="Because") as caught:
        process_storage_error(refused)
    raised: Exception = caught.value
    return raised


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
        (google(503), True, False),
        (google(502), True, False),
        (google(500), True, False),
        (google(429), True, False),
        (google(408), True, False),
        (google(400), False, False),
        (google(401, "Invalid Credentials"), False, False),
        (google(403), False, False),
        (gcs.ChecksumError(), True, False),
        (auth.TransportError("no route"), True, False),
        (auth.RefreshError("late", retryable=True), True, False),
        (auth.RefreshError("expired"), False, False),
        (auth.DefaultCredentialsError("none"), False, False),
        (api.ServiceUnavailable("later"), True, False),
        (api.TooManyRequests("later"), True, False),
        (api.Forbidden("no"), False, False),
        (azure_answer(503, "ServerBusy"), True, False),
        (azure_answer(500, "OperationTimedOut"), True, False),
        (azure_answer(429, "TooManyRequests"), True, False),
        (azure_answer(408, "RequestTimeout"), True, False),
        (azure_answer(403, "AuthorizationFailure"), False, False),
        (azure_answer(400, "InvalidUri"), False, False),
        (azure.ServiceRequestError("no route"), True, False),
        (azure.ServiceResponseTimeoutError("late"), True, False),
        (azure.IncompleteReadError("half"), True, False),
        (azure.ClientAuthenticationError("who"), False, False),
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
        (http_answer(403), StorageError, "u: permission denied; check the owner"),
        (google(503), TransientStorageError, "u: Because., 503; check the URL, the network"),
        (google(502), TransientStorageError, "u: ProxyError; check the URL, the network"),
        (google(401, "Invalid Credentials"), StorageError, "u: permission denied; check the owner"),
        (google(403), StorageError, "u: permission denied; check the owner"),
        (google(404), NotFoundError, "u: no such file or object; check the URL"),
        (google(400, "invalid name"), StorageError, "u: Bad Request: b/x; check the URL and its"),
        (auth.DefaultCredentialsError("none"), StorageError, "u: permission denied; check the"),
        (api.Forbidden("no"), StorageError, "u: permission denied; check the owner"),
        (azure_answer(503, "ServerBusy"), TransientStorageError, "u: Because.; check the URL, the"),
        (
            azure_answer(403, "AuthorizationFailure"),
            StorageError,
            r"u: permission denied \(AuthorizationFailure\); check the owner",
        ),
        (
            azure_answer(401, "NoAuthenticationInformation"),
            StorageError,
            r"u: permission denied \(NoAuthenticationInformation\); check the owner",
        ),
        (azure_answer(404, "BlobNotFound"), NotFoundError, "u: no such file or object; check the"),
        (azure_answer(400, "InvalidUri"), StorageError, "u: Because.; check the URL, the network"),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else None,
)
def test_each_is_one_line(error: Exception, kind: type[Exception], message: str) -> None:
    found = storage.translate("u", error)
    assert type(found) is kind
    assert "\n" not in str(found)
    with pytest.raises(kind, match=rf"^{message}"):
        raise found


def test_what_cannot_be_created_for_want_of_a_container_is_said() -> None:
    found = storage.translate("az://c/x", azure_answer(404, "ContainerNotFound"), writing=True)
    assert str(found).startswith("az://c/x: nothing can be created here (Because.); write to")


def test_what_gcsfs_has_tried_again_is_left() -> None:
    """aiohttp's errors come through it, too, after six attempts of its own."""
    namespace: dict[str, Any] = {"__name__": "gcsfs.core", "error": aiohttp.ClientPayloadError("x")}
    exec("def ask(): raise error", namespace)
    with pytest.raises(aiohttp.ClientPayloadError) as caught:
        namespace["ask"]()
    assert (is_transient(caught.value), is_unrepeated(caught.value)) == (True, False)


def test_the_server_s_words_are_found() -> None:
    assert status_of(refusal(412, "PreconditionFailed")) == 412
    assert code_of(refusal(503, "SlowDown")) == "SlowDown"
    assert code_of(refusal(403, "403")) is None
    assert status_of(ValueError("x")) is None
    assert code_of(ValueError("x")) is None
    assert status_of(google(429)) == 429
    assert (
        status_of(azure_answer(503, "ServerBusy")),
        code_of(azure_answer(503, "ServerBusy")),
    ) == (
        503,
        "ServerBusy",
    )
