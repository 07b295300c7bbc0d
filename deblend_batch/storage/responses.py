"""What a store's client says went wrong: the server's answer, and whether another try may go better.

Clients are optional packages, so their exceptions are known by name.
"""

from __future__ import annotations

from collections.abc import Iterator

CLIENTS = frozenset({"aiohttp", "botocore", "aiobotocore", "s3fs"})
"""Packages that talk to stores."""

_TRY_AGAIN = frozenset({408, 409, 425, 429})
_DAMAGED_ON_THE_WAY = frozenset(
    {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
)
_NETWORK = frozenset(
    {
        "ClientError",
        "ConnectionError",
        "HTTPClientError",
        "TimeoutError",
        "CredentialRetrievalError",
        "MetadataRetrievalError",
    }
)
_BROKEN_OFF = frozenset(
    {"AioReadTimeoutError", "ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"}
)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception stands for, or None."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return None if status is None else int(status)
        if package_of(each) == "aiohttp" and isinstance(getattr(each, "status", None), int):
            return int(getattr(each, "status", 0))
    return None


def code_of(error: BaseException) -> str | None:
    """Return the code of an S3 server's refusal, such as ``SlowDown``, or None."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            return code if code and not code.isdigit() else None
    return None


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later: the network's fault, or a server's for now."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in _TRY_AGAIN or code_of(error) in _DAMAGED_ON_THE_WAY
    if package_of(error) in CLIENTS:
        return not _NETWORK.isdisjoint(_names(error)) or not _BROKEN_OFF.isdisjoint(_names(error))
    return isinstance(error, OSError)


def is_unrepeated(error: BaseException) -> bool:
    """Tell whether an exception is transient and of a kind that no client has tried again.

    botocore repeats requests that are refused or reset, but not those whose answer breaks off half-way, or
    whose body arrives damaged; fsspec's HTTP client repeats nothing.
    """
    if code_of(error) in _DAMAGED_ON_THE_WAY or not _BROKEN_OFF.isdisjoint(_names(error)):
        return True
    return package_of(error) == "aiohttp" and is_transient(error)


def package_of(error: BaseException) -> str:
    """Return the package that defines an exception's class."""
    return type(error).__module__.split(".")[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its direct cause: s3fs turns the client's exceptions into built-in ones."""
    yield error
    if error.__cause__ is not None:
        yield error.__cause__


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
