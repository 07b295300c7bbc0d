"""What a run may do at its stores, tried out before any work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.config import RunConfig
from deblend_batch.detections.formats.scan import table_of
from deblend_batch.engine.inputs.survey import SurveyEntry
from deblend_batch.errors import NotFoundError, StorageError, UserError
from deblend_batch.field.layout import Field
from deblend_batch.models.registry import resolve
from deblend_batch.storage import Options

_CONTENT = b"Written by deblend-batch to learn whether it may; of no further use.\n"


def check_places(
    config: RunConfig, entries: Iterable[SurveyEntry], fields: Iterable[Field]
) -> None:
    """Check that the output lies apart from all that the run reads, and in no other output."""
    inputs = [url for field in fields for url in field.places]
    inputs += [_file(entry.detections_url) for entry in entries]
    tables = [_file(config.pairs.table)] if config.pairs.table else []
    inputs += [url for url in (*tables, resolve(config.model)) if url]
    storage.check_apart(config.output, dict.fromkeys(inputs), config.storage_options)


def check_tables(urls: Iterable[str], options: Options) -> None:
    """Check that tables are there, and that those in remote stores can be read: one request for a file.

    Of fields this is known once they are open.
    """
    for url in map(_file, urls):
        if not _is_file(url, options) and not storage.list_names(url, options):
            raise NotFoundError(f"{url}: no such detection or pairs table; check the URL")


def _file(table: str) -> str:
    """Return where a table's file is: ``FILE`` of ``FILE[TABLE]``."""
    return table_of(table)[0]


def _is_file(url: str, options: Options) -> bool:
    if storage.is_local(url):
        return storage.exists(url)
    try:
        return bool(storage.read_start(url, 1, options))
    except NotFoundError:
        return False


def check_output(output: Output) -> None:
    """Check that the output's store lets a run write, read and list, and create an object only once.

    A local path is not tried out: to write there may make folders. In a store an object is made and removed;
    if it is there already, left by a killed driver or made by another at this moment, one refusal to make it
    again is proof enough.
    """
    if storage.is_local(output.url):
        return
    url = output.probe_url
    with _explained(output, "write", url):
        mine = output.create(url, _CONTENT)
    try:
        with _explained(output, "read", url):
            output.read(url)
        with _explained(output, "list", output.url):
            output.names()
        with _explained(output, "write", url):
            twice = mine and output.create(url, _CONTENT)
    finally:
        if mine:
            with suppress(StorageError):  # nothing that a run must be able to do
                output.remove(url)
    if twice:
        raise StorageError(
            f"{output}: its store ignores 'If-None-Match: *', so that two drivers could commit one tile; "
            "use one that honours conditional writes"
        )


@contextmanager
def _explained(output: Output, verb: str, url: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        reason = str(error).removeprefix(f"{url}: ")
        raise StorageError(f"{output}: cannot {verb}: {reason}") from error
