"""Where log lines go, and how they look: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

import structlog

from deblend_batch.text import printable, printable_lines

LogFormat = Literal["text", "json"]

log = structlog.get_logger()

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class _Chosen:
    log_format: LogFormat = "text"
    always: Mapping[str, str] = {}


def chosen_format() -> LogFormat:
    """Return the format of this process's log lines."""
    return _Chosen.log_format


def configure_logs(log_format: LogFormat, *, debug: bool = False, **always: str) -> None:
    """Send log lines to the standard error.

    What libraries log and warn of is for programs and for who mends this one: as text it is left out, so
    that nothing stands above what is said to the user.
    """
    _Chosen.log_format = log_format
    tell_always(**always)
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_always,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _printable_event,
    ]
    as_json = structlog.processors.JSONRenderer(default=str)
    text = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*common, as_json if log_format == "json" else text],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.INFO
        ),
        # Looked up at each line: a caller may have put another stream in its place since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    quiet = log_format == "text" and not debug
    logging.disable(logging.CRITICAL if quiet else logging.NOTSET)
    # To the loggers, of which that holds: filters would not do, since libraries set their own.
    logging.captureWarnings(capture=not debug or log_format == "json")
    if log_format == "json":
        _convert_records([*common, structlog.stdlib.add_logger_name], as_json)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_PrintableFormatter(logging.BASIC_FORMAT))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])


def tell_always(**always: str) -> None:
    """Put something in every line of this process from now on, whichever thread logs it."""
    _Chosen.always = always


def told_always() -> dict[str, str]:
    """Return what every line of this process tells."""
    return dict(_Chosen.always)


def _add_always(_: Any, __: str, event: Any) -> Any:
    return {**_Chosen.always, **event}


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


def _convert_records(common: list[Any], as_json: Any) -> None:
    """Make JSON of what libraries log and warn, too."""
    handler = logging.StreamHandler()
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[drop, as_json], foreign_pre_chain=common)
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _LinesToLog(io.TextIOBase):
    """A stream whose lines become log lines."""

    def __init__(self) -> None:
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if plain := _ANSI.sub("", line).strip():
                log.warning("printed", text=plain)
        return len(text)


def prints_to_log() -> contextlib.redirect_stdout[Any]:
    """Keep the standard output for results: what Ray prints there meanwhile becomes log lines."""
    return contextlib.redirect_stdout(_LinesToLog() if chosen_format() == "json" else sys.stderr)
