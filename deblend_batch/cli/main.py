"""``deblend-batch``: the entry point, and what ends every verb: one line and an exit code.

It imports next to nothing: whenever a user presses Ctrl-C, it is here already to say so in one line.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

EXIT_INTERRUPTED = 130
EXIT_USER = 2
EXIT_INTERNAL = 1

_LOG_FORMATS = ("text", "json")


class _Talk(NamedTuple):
    """How much is told of an error, and in which format."""

    debug: bool
    log_format: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit code: 0 complete; 1 internal error; 2 the user's mistake; 3 complete but with quarantined
        tiles; 130 interrupted, resumable.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("DEBLEND_BATCH_DEBUG"))
    words = [word for word in words if word != "--debug"]
    log_format, words = _take_log_format(words)
    talk = _Talk(debug, log_format)
    if log_format not in _LOG_FORMATS:
        line = f"--log-format: {log_format!r} is not a format; give {' or '.join(_LOG_FORMATS)}"
        return _fail(line, EXIT_USER, _Talk(debug, "text"))
    try:
        return _perform(words, talk)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED, talk)
    except Exception as error:  # noqa: BLE001  # the last place that can turn it into one line
        if _follows_interrupt(error):
            return _fail("interrupted", EXIT_INTERRUPTED, talk)
        text = (str(error).strip().splitlines() or [""])[0]
        line = f"internal error: {type(error).__name__}: {text}; --debug shows where"
        return _fail(line, EXIT_INTERNAL, talk)


def _take_log_format(words: list[str]) -> tuple[str, list[str]]:
    """Find the option wherever it stands, since jobs put words of their own first; else the environment's."""
    chosen = os.environ.get("DEBLEND_BATCH_LOG") or "text"
    rest, words = [], list(words)
    while words:
        word = words.pop(0)
        if word == "--log-format":
            chosen = words.pop(0) if words else ""
        elif word.startswith("--log-format="):
            chosen = word.partition("=")[2]
        else:
            rest.append(word)
    return chosen, rest


def _perform(words: list[str], talk: _Talk) -> int:
    import typer

    from deblend_batch.cli.app import build_app
    from deblend_batch.errors import DeblendError

    try:
        result = build_app()(words, prog_name="deblend-batch", standalone_mode=False, obj=talk)
    except DeblendError as error:
        return _fail(str(error), error.exit_code, talk)
    except typer.TyperException as error:  # a wrong option or argument
        return _fail(f"{error.format_message()} (see --help)", EXIT_USER, talk)
    if result == EXIT_INTERRUPTED:  # what typer makes of Ctrl-C, without a word
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _follows_interrupt(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is behind an error: a compiled module makes an ImportError of it."""
    seen: list[BaseException] = []  # fsspec raises errors that are their own cause
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def _fail(message: str, code: int, talk: _Talk) -> int:
    from deblend_batch.text import printable, printable_lines

    line = printable(" ".join(message.split()))
    if talk.log_format == "json":
        sys.stderr.write(_json_line(line, code, debug=talk.debug))
        return code
    if talk.debug:
        sys.stderr.write(printable_lines(traceback.format_exc()))
    sys.stderr.write(f"error: {line}\n")
    return code


def _json_line(line: str, code: int, *, debug: bool) -> str:
    """Return the line as the other log lines are, which may have told nothing yet, nor been set up."""
    import json
    from datetime import UTC, datetime

    from deblend_batch.text import printable_lines

    logs = sys.modules.get("deblend_batch.logs")
    content: dict[str, object] = logs.told_always() if logs else {}
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    content |= {"event": line, "level": "error", "timestamp": at, "exit_code": code}
    if debug:
        content["exception"] = printable_lines(traceback.format_exc())
    return json.dumps(content, default=str) + "\n"


def run() -> None:
    """Entry point of the console script."""
    # Registered first, so called last: while Python clears its modules, Ctrl-C has no handler any more.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    code = main()
    sys.stdout.flush()
    # All is said and done: Ctrl-C now only cuts short the end of threads and of Ray.
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    sys.exit(code)
