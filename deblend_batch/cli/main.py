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

EXIT_INTERRUPTED = 130
EXIT_USER = 2
EXIT_INTERNAL = 1


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
    try:
        return _perform([word for word in words if word != "--debug"], debug=debug)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED, debug=debug)
    except Exception as error:  # noqa: BLE001  # the last place that can turn it into one line
        if _follows_interrupt(error):
            return _fail("interrupted", EXIT_INTERRUPTED, debug=debug)
        text = (str(error).strip().splitlines() or [""])[0]
        line = f"internal error: {type(error).__name__}: {text}; --debug shows where"
        return _fail(line, EXIT_INTERNAL, debug=debug)


def _perform(words: list[str], *, debug: bool) -> int:
    import typer

    from deblend_batch.cli.app import build_app
    from deblend_batch.errors import DeblendError

    try:
        result = build_app()(words, prog_name="deblend-batch", standalone_mode=False, obj=debug)
    except DeblendError as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except typer.TyperException as error:  # a wrong option or argument
        return _fail(f"{error.format_message()} (see --help)", EXIT_USER, debug=debug)
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


def _fail(message: str, code: int, *, debug: bool) -> int:
    from deblend_batch.text import printable, printable_lines

    if debug:
        sys.stderr.write(printable_lines(traceback.format_exc()))
    sys.stderr.write(f"error: {printable(' '.join(message.split()))}\n")
    return code


def run() -> None:
    """Entry point of the console script."""
    # Registered first, so called last: while Python clears its modules, Ctrl-C has no handler any more.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    code = main()
    sys.stdout.flush()
    # All is said and done: Ctrl-C now only cuts short the end of threads and of Ray.
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    sys.exit(code)
