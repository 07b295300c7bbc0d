"""``deblend-batch``: the entry point, and what every verb shares: logs, errors, exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import structlog
import typer

from deblend_batch.errors import DeblendError
from deblend_batch.version import __version__

EXIT_INTERRUPTED = 130
EXIT_USER = 2
EXIT_INTERNAL = 1


def build_app() -> typer.Typer:
    """Put the verbs together, in the order in which a newcomer needs them."""
    from deblend_batch.cli import fields, products, runs, science

    app = typer.Typer(
        name="deblend-batch",
        help="Separate overlapping galaxies at survey scale. --debug, anywhere, shows tracebacks.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for module in (products.demo_app, fields.app, runs.app, products.app, science.app):
        app.registered_commands += module.registered_commands
    app.add_typer(fields.simulate_app, name="simulate")
    return app


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"deblend-batch {__version__}")
        raise typer.Exit


def _root(
    _: bool = typer.Option(
        False, "--version", callback=_say_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Hold the options that belong to no verb."""


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
    _configure_logs(debug=debug)
    try:
        result = build_app()(words, prog_name="deblend-batch", standalone_mode=False)
    except DeblendError as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED, debug=debug)
    except Exception as error:  # noqa: BLE001  # the last place that can turn it into one line
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.ctx.get_help())  # type: ignore[attr-defined]  # click's, whichever typer brings
            return EXIT_USER
        if hasattr(error, "format_message"):  # click's own: a wrong option or argument
            return _fail(f"{error.format_message()} (see --help)", EXIT_USER, debug=debug)
        if type(error).__name__ == "Abort":
            return _fail("interrupted", EXIT_INTERRUPTED, debug=debug)
        text = (str(error).strip().splitlines() or [""])[0]
        line = f"internal error: {type(error).__name__}: {text}; --debug shows where"
        return _fail(line, EXIT_INTERNAL, debug=debug)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        structlog.get_logger().exception("traceback")
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _configure_logs(*, debug: bool) -> None:
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each line: a caller may have put another stream in its place since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
