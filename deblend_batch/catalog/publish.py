"""The published catalogue: the shards of a run as a HATS collection, with its margin cache.

hats-import does the partitioning; this module only hands it the shards and checks what comes out.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from deblend_batch import storage
from deblend_batch.catalog.output import CATALOG, Output
from deblend_batch.errors import CatalogError, UserError
from deblend_batch.progress import Progress, silent

MARGIN_ARCSEC = 5.0
_MAX_ROWS = 1_000_000
_FINEST_ORDER = 9
"""Of HEALPix, for a partition: 47 square arcmin, which no sky fills with so many rows.

hats-import's own, 10, has it look at twelve million cells one by one, in Python, for any catalogue.
"""
_ORDER_OF_WHOLE = 7
"""The same where no cell can have too many rows, so that none is divided: of the map of densities alone."""


@dataclass(frozen=True)
class Publication:
    """A published catalogue.

    Parameters
    ----------
    url : str
        The HATS collection; ``lsdb.open_catalog(url)`` opens it.
    rows : int
        Rows in it.
    partitions : int
        Leaf files.
    """

    url: str
    rows: int
    partitions: int

    def to_dict(self) -> dict[str, Any]:
        """Return the publication as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the publication as names and texts."""
        return [
            ("catalogue", self.url),
            ("rows", f"{self.rows:,} in {self.partitions:,} partitions"),
            ("open with", f"lsdb.open_catalog({self.url!r})"),
        ]


def publish_shards(output: Output, rows: int, progress: Progress = silent) -> Publication:
    """Publish the shards of a run as a HATS catalogue; an earlier publication is replaced."""
    if not rows:
        raise CatalogError(f"{output}: no rows to publish; a run without pairs has no catalogue")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        # hats-import and the pandas it uses warn of their own future changes.
        warnings.simplefilter("ignore")
        partitions = _import(output, rows, scratch, progress)
    return Publication(output.catalog_url, rows, partitions)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Dask's and hats-import's own chatter out of the user's log."""
    loggers = [logging.getLogger(), logging.getLogger("distributed")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _import(output: Output, rows: int, scratch: str, progress: Progress) -> int:
    try:
        from dask.distributed import Client
        from hats import read_hats
        from hats_import import CollectionArguments, pipeline_with_client
        from upath import UPath

        from deblend_batch.catalog.task_counter import TaskCounter
    except ImportError as error:
        raise UserError(
            f"publish needs hats-import ({error.name} is missing): pip install 'deblend-batch[publish]'"
        ) from error
    output.remove_tree(output.catalog_url)

    def path(url: str) -> Any:
        return UPath(url, **storage.options_of(url, output.options))

    shards = output.shards()
    arguments = (
        CollectionArguments(
            output_artifact_name=CATALOG,
            output_path=path(output.url),
            tmp_dir=scratch,
            progress_bar=False,
        )
        .catalog(
            input_file_list=[path(output.shard_url(tile)) for tile in shards],
            file_reader="parquet",
            ra_column="ra",
            dec_column="dec",
            use_healpix_29=True,
            add_healpix_29=False,
            expected_total_rows=rows,
            pixel_threshold=_MAX_ROWS,
            highest_healpix_order=_FINEST_ORDER if rows > _MAX_ROWS else _ORDER_OF_WHOLE,
        )
        .add_margin(margin_threshold=MARGIN_ARCSEC, is_default=True)
    )
    # Dask serves its status page whether asked to or not; nobody else's business.
    loopback = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with (
        _quiet_logs(),
        Client(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            plugins=[TaskCounter(progress, len(shards))],
            **loopback,
        ) as client,
    ):
        pipeline_with_client(arguments, client)
    catalog = read_hats(path(output.catalog_url))
    return len(catalog.main_catalog.get_healpix_pixels())
