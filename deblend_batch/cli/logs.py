"""Where log lines go, and how they look."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(*, debug: bool) -> None:
    """Send log lines to the standard error.

    Parameters
    ----------
    debug : bool
        Show debug lines too.
    """
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
