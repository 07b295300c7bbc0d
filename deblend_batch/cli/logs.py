"""Where log lines go, and how they look."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from deblend_batch.text import printable, printable_lines


def configure_logs(*, debug: bool) -> None:
    """Send log lines to the standard error.

    Parameters
    ----------
    debug : bool
        Show debug lines too.
    """
    level = logging.DEBUG if debug else logging.INFO
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _printable_event,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each line: a caller may have put another stream in its place since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


class _PrintableFormatter(logging.Formatter):
    """What libraries log, without secrets and with nothing that a terminal would act on."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _printable_event(_: Any, __: str, event: Any) -> Any:
    return {
        key: (printable_lines if key == "exception" else printable)(value)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }
