"""What a store's exception means to the user, in one line."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from deblend_batch.errors import NotFoundError, StorageError, TransientStorageError, UserError
from deblend_batch.storage.responses import (
    CLIENTS,
    code_of,
    is_denied,
    is_transient,
    package_of,
    packages_of,
    status_of,
)
from deblend_batch.storage.retrying import repeat
from deblend_batch.storage.urls import is_local

P = ParamSpec("P")
T = TypeVar("T")

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_WRONG_PATH = frozenset({errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})


def translated(function: Callable[P, T]) -> Callable[P, T]:
    """Try again what broke off, and turn the exceptions of a read into one-line errors.

    They name the URL, which is the first argument.
    """
    return _translated(function, writing=False)


def translated_write(function: Callable[P, T]) -> Callable[P, T]:
    """Try again what broke off, and turn the exceptions of a write into one-line errors.

    They name the URL, which is the first argument.
    """
    return _translated(function, writing=True)


def _translated(function: Callable[P, T], *, writing: bool) -> Callable[P, T]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return repeat(partial(function, *args, **kwargs))
        except (FileExistsError, UserError):
            raise
        except Exception as error:
            raise translate(str(args[0]), error, writing=writing) from error

    return call


def translate(url: str, error: Exception, *, writing: bool = False) -> Exception:
    """Return the one-line error that a store's exception means to the user."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status_of(error) == 404:
        return _not_created(url, error) if writing else _not_found(url)
    if is_denied(error):
        code = code_of(error)
        return StorageError(
            f"{url}: permission denied{f' ({code})' if code else ''}; "
            "check the owner, the mode or the credentials"
        )
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return StorageError(f"{url}: no space left on the device; free some and run again")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return StorageError(f"{url}: the file system is read-only; write to another path")
    if isinstance(error, OSError) and error.errno in _WRONG_PATH:
        return StorageError(f"{url}: {error.strerror}; check the path")
    if isinstance(error, OSError) or package_of(error) in CLIENTS:
        kind = TransientStorageError if is_transient(error) else StorageError
        return kind(f"{url}: {_first_line(error)}; check the URL, the network and the credentials")
    packages = packages_of(error)
    if isinstance(error, TypeError | AttributeError) and not CLIENTS.isdisjoint(packages):
        return StorageError(  # clients check no option themselves
            f"{url}: its storage options have an unknown name or a value of the wrong kind; check them"
        )
    if isinstance(error, ValueError | KeyError) and packages and packages[-1] in CLIENTS:
        return StorageError(f"{url}: {_first_line(error)}; check the URL and its storage options")
    return error


def _not_found(url: str) -> NotFoundError:
    return NotFoundError(f"{url}: no such file or object; check the URL")


def _not_created(url: str, error: Exception) -> StorageError:
    # A local file system says no more than "No such file or directory"; a store names the bucket.
    reason = "" if is_local(url) else f" ({_first_line(error)})"
    return StorageError(f"{url}: nothing can be created here{reason}; write to another path")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
