"""Every error this package raises on purpose.

A :class:`DeblendError` says in one line what went wrong, where, and how to mend it. The class decides
the exit code of the command line; a subclass also inherits the builtin that a library caller would catch.
"""

from __future__ import annotations

from deblend_batch.text import redacted


class DeblendError(Exception):
    """Base class of all errors raised on purpose; its message is one line, which holds no secret of a URL."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        shown = [redacted(each) if isinstance(each, str) else each for each in args]
        super().__init__(*shown)
        self.args = tuple(shown)  # OSError takes its own from the call


class UserError(DeblendError):
    """Something that the user can mend: an input, an option, a permission, a name."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A config file or an option that cannot be used."""


class FieldError(UserError, ValueError):
    """A field (or an image to ingest) whose content breaks the layout."""


class DetectionsError(UserError, ValueError):
    """A detection or pairs table that cannot be used."""


class TooLargeError(UserError, ValueError):
    """An input that asks for more memory, disk or time than it can need."""


class DamagedFileError(UserError, ValueError):
    """A packed file whose stream is cut, or damaged."""


class ModelError(UserError, ValueError):
    """A model name, weights file or stamp batch that cannot be used."""


class CatalogError(UserError, ValueError):
    """An output folder whose catalogue is missing, incomplete or damaged."""


class NotFoundError(UserError, FileNotFoundError):
    """A URL that does not exist or cannot be read."""

    # FileNotFoundError would print "[Errno None] ..." for a single argument.
    __str__ = Exception.__str__


class StorageError(UserError, OSError):
    """A store that refuses a read or a write: permission, space, network."""

    __str__ = Exception.__str__


class TransientStorageError(StorageError):
    """A store that may answer when asked again: network, throttling, time-out."""


class IrregularFileError(UserError, OSError):
    """What is named as a file and cannot be read as one: a device, a pipe, a link out of its folder."""

    __str__ = Exception.__str__


class OutputConflictError(UserError, FileExistsError):
    """An output that belongs to another run."""

    __str__ = Exception.__str__


class RunStoppedError(DeblendError, RuntimeError):
    """A run stopped early because going on would only repeat the same failure."""


class InterruptedRunError(DeblendError):
    """A run stopped by SIGINT or SIGTERM; running again resumes it."""

    exit_code = 130


class BadDataError(DeblendError, ValueError):
    """Pixels or rows that cannot be processed; trying again will not help, so they are quarantined."""
