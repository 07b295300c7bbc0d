"""What a store's client says went wrong: the server's answer, and whether another try may go better.

Clients are optional packages, so their exceptions are known by name.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

CLIENTS = frozenset(
    {"aiohttp", "botocore", "aiobotocore", "s3fs", "gcsfs", "google", "adlfs", "azure"}
)
"""Packages that talk to stores."""

_TRY_AGAIN = frozenset({408, 409, 425, 429})
_DENIED = frozenset({401, 403})
_STATUS_NAMES = {"aiohttp": "status", "gcsfs": "code", "google": "code", "azure": "status_code"}
"""Where a package's exceptions keep the status of an answer; botocore's have the answer itself."""
_REPEATING = frozenset({"gcsfs", "azure"})
"""Clients that try again whatever may go better, answers that break off included."""
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
        "ChecksumError",  # gcsfs
        "TransportError",  # google.auth
        "RetryError",  # google.api_core
        "ServiceRequestError",  # azure.core
        "ServiceResponseError",
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
        status = getattr(each, _STATUS_NAMES.get(package_of(each), ""), None)
        if isinstance(status, int | str) and str(status).isdigit():
            return int(status)
    return None


def code_of(error: BaseException) -> str | None:
    """Return the code of a server's refusal, such as ``SlowDown``, or None."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            return code if code and not code.isdigit() else None
        if package_of(each) == "azure" and getattr(each, "error_code", None):
            code = each.error_code  # type: ignore[attr-defined]
            return str(getattr(code, "value", code))
    return None


def is_denied(error: BaseException) -> bool:
    """Tell whether a server refused for want of a permission, or because it knows no such user."""
    if isinstance(error, PermissionError) or status_of(error) in _DENIED:
        return True
    if package_of(error) == "google":  # of google.auth: no token, or an old one
        return not is_transient(error) and status_of(error) is None
    # gcsfs says it with no more than a word.
    return type(error) is OSError and error.errno is None and str(error).startswith("Forbidden: ")


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later: the network's fault, or a server's for now."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in _TRY_AGAIN or code_of(error) in _DAMAGED_ON_THE_WAY
    if package_of(error) in CLIENTS:
        if getattr(error, "retryable", False):  # google.auth
            return True
        return not _NETWORK.isdisjoint(_names(error)) or not _BROKEN_OFF.isdisjoint(_names(error))
    return isinstance(error, OSError) and not is_denied(error)


def is_unrepeated(error: BaseException) -> bool:
    """Tell whether an exception is transient and of a kind that no client has tried again.

    botocore repeats requests that are refused or reset, but not those whose answer breaks off half-way, or
    whose body arrives damaged; fsspec's HTTP client repeats nothing; those of Google and Azure repeat it all.
    """
    if not _REPEATING.isdisjoint([package_of(error), *packages_of(error)]):
        return False
    if code_of(error) in _DAMAGED_ON_THE_WAY or not _BROKEN_OFF.isdisjoint(_names(error)):
        return True
    return package_of(error) == "aiohttp" and is_transient(error)


def package_of(error: BaseException) -> str:
    """Return the package that defines an exception's class."""
    return type(error).__module__.split(".")[0]


def packages_of(error: BaseException) -> list[str]:
    """Return the packages whose code an exception has passed, from the outermost to where it was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__")).split(".")[0] for frame, _ in frames]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its direct cause: s3fs turns the client's exceptions into built-in ones."""
    yield error
    if error.__cause__ is not None:
        yield error.__cause__


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
