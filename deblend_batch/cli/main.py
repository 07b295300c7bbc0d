"""``deblend-batch``: the entry point, and what ends every verb: one line and an exit code.

It imports next to nothing: whenever a user presses Ctrl-C, it is here already to say so in one line.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
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
    """
    _fill_streams()
    # No process that is started from here looks for modules in the working folder, which holds data.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _wants_debug(words)
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
        if _follows(error, KeyboardInterrupt):
            return _fail("interrupted", EXIT_INTERRUPTED, talk)
        if _follows(error, BrokenPipeError) and _leave_unread():
            return EXIT_UNREAD
        if known := _of_the_machine(error):
            return _fail(known, EXIT_USER, talk)
        text = (str(error).strip().splitlines() or [""])[0]
        line = f"internal error: {type(error).__name__}: {text}; --debug shows where"
        return _fail(line, EXIT_INTERNAL, talk)


def _of_the_machine(error: Exception) -> str:
    """Say what the machine lacks for an error that nobody translated, if it lacks something."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the device; free some and run again"
    if isinstance(error, UnicodeEncodeError):
        return "a path or name is not text in UTF-8; rename it"
    if isinstance(error, MemoryError):
        return "no memory left for this process; free some, or raise its limit (ulimit -v)"
    if isinstance(error, FileNotFoundError) and _is_folder_gone():
        return "the working folder has been removed; change to another one and run again"
    return ""


def _is_folder_gone() -> bool:
    """Tell whether the working folder has been removed under us."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _wants_debug(words: Sequence[str]) -> bool:
    return "--debug" in words or bool(os.environ.get("DEBLEND_BATCH_DEBUG"))


def _fill_streams() -> None:
    """Give standard streams that are closed, as a daemon's may be, a place for what is written to them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Of that number itself: the next file that is opened would take it, and what is printed.
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
        stream = getattr(sys, name)
        if number and hasattr(
            stream, "reconfigure"
        ):  # what the encoding lacks is shown as an escape
            stream.reconfigure(errors="backslashreplace")


def _leave_unread() -> bool:
    """Tell whether the reader of a standard stream has gone; what is left to say is then said to nobody."""
    gone = False
    for number in (1, 2):
        poller = select.poll()
        poller.register(number, 0)
        if any(event & (select.POLLERR | select.POLLNVAL) for _, event in poller.poll(0)):
            gone = True
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
    return gone


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
    from deblend_batch.cli.ahead import AHEAD
    from deblend_batch.errors import DeblendError

    try:
        AHEAD.start(words)
    except DeblendError as error:
        return _fail(str(error), error.exit_code, talk)
    import typer

    from deblend_batch.cli.app import build_app

    try:
        result = build_app()(words, prog_name="deblend-batch", standalone_mode=False, obj=talk)
    except DeblendError as error:
        return _fail(str(error), error.exit_code, talk)
    except SystemExit as stop:  # what click makes of a reader that has gone
        if _follows(stop, BrokenPipeError) and _leave_unread():
            return EXIT_UNREAD
        raise
    except typer.TyperException as error:  # a wrong option or argument
        return _fail(f"{error.format_message()} (see --help)", EXIT_USER, talk)
    if result == EXIT_INTERRUPTED:  # what typer makes of Ctrl-C, without a word
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _follows(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Tell whether something else is behind an error: of Ctrl-C a compiled module makes an ImportError."""
    seen: list[BaseException] = []  # fsspec raises errors that are their own cause
    while error is not None and error not in seen:
        if isinstance(error, kind):
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


def _speak_utf_8() -> None:
    """Begin again in UTF-8 where the locale would have names in something less, such as ASCII."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606


def run() -> None:
    """Entry point of the console script."""
    _speak_utf_8()
    # Registered first, so called last: while Python clears its modules, Ctrl-C has no handler any more.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    if not _wants_debug(
        sys.argv
    ):  # what goes wrong while libraries are taken down is nobody's business
        sys.unraisablehook = lambda _: None
    code = main()
    if _leave_unread():
        code = code or EXIT_UNREAD
    # All is said and done: Ctrl-C now only cuts short the end of threads and of Ray.
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    gc.freeze()  # the system takes the memory back, faster than Python would look for what holds what
    sys.exit(code)
