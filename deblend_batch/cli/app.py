"""The verbs put together, and the options that belong to none of them."""

from __future__ import annotations

import typer

from deblend_batch.cli import fields, products, runs, science, surveys
from deblend_batch.cli.output import show_help_alone
from deblend_batch.version import __version__


def build_app() -> typer.Typer:
    """Put the verbs together, in the order in which a newcomer needs them."""
    app = typer.Typer(
        name="deblend-batch",
        help="Separate overlapping galaxies at survey scale. Anywhere in the line, --debug shows "
        "tracebacks, and --log-format json makes each log line a JSON object.",
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for module in (products.demo_app, fields.app, surveys.app, runs.app, products.app, science.app):
        app.registered_commands += module.registered_commands
    app.add_typer(fields.simulate_app, name="simulate")
    return app


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"deblend-batch {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    _: bool = typer.Option(
        False, "--version", callback=_say_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Hold the options that belong to no verb."""
    show_help_alone(context)
    # Only now: it takes longer to import than all that --help needs.
    from deblend_batch.logs import configure_logs

    debug, log_format = context.obj
    configure_logs(log_format, debug=debug)
