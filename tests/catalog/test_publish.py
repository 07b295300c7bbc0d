"""The published catalogue: the same rows, open to lsdb, made anew each time, refused while incomplete."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.publish import Publication, publish_shards
from deblend_batch.engine.audit.publication import publish_run
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import CatalogError, UserError
from tests.support import SmallField, read_shards

pytestmark = [
    # lsdb, nested-pandas and dask use what pandas 4 will drop; we call none of it ourselves.
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


STRAY = ("catalog", "catalog", "dataset", "Norder=0", "Dir=0", "Npix=0.parquet")
"""A leaf of an earlier publication, by its place in a run's folder."""


@pytest.fixture(scope="module")
def finished(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run that nobody has published."""
    output = str(tmp_path_factory.mktemp("publish") / "out")
    process_field(small_field.config(output, engine={"actors": 1}))
    return output


@pytest.fixture
def run(finished: str, tmp_path: Path) -> str:
    """A copy of it, to be changed."""
    shutil.copytree(finished, tmp_path / "out")
    return str(tmp_path / "out")


class Watched(NamedTuple):
    """A publication, and what its process was like meanwhile."""

    publication: Publication
    opened: set[str]
    """Addresses on which it could be reached."""
    listening: set[tuple[str, int]]
    """Ports that were open before."""
    level: int
    """What was logged before."""


@pytest.fixture(scope="module")
def watched(finished: str, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The publication of a copy of the run, where an earlier one has left a file."""
    hats_import = pytest.importorskip("hats_import")
    pipeline = hats_import.pipeline_with_client
    level, before = logging.getLogger().level, listening()
    opened: set[str] = set()

    def pipeline_watched(*arguments: Any) -> None:
        opened.update(address for address, _ in listening() - before)
        pipeline(*arguments)

    copy = tmp_path_factory.mktemp("published") / "out"
    shutil.copytree(finished, copy)
    stray = copy.joinpath(*STRAY)
    stray.parent.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), stray)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hats_import, "pipeline_with_client", pipeline_watched)
        publication = publish_run(Output(str(copy)))
    return Watched(publication, opened, before, level)


@pytest.fixture(scope="module")
def published(watched: Watched) -> Publication:
    return watched.publication


@pytest.mark.slow
def test_lsdb_opens_the_same_rows(published: Publication, finished: str) -> None:
    lsdb = pytest.importorskip("lsdb")
    import dask

    rows = read_shards(finished)
    with dask.config.set(scheduler="synchronous"):
        catalog = lsdb.open_catalog(published.url)
        frame = catalog.compute()
    assert len(frame) == published.rows == len(rows)
    assert catalog.margin is not None
    frame = frame.sort_values(["blend_id", "role"])
    for name in rows.schema.names:
        if name != "_healpix_29":  # lsdb makes it the index
            expected = rows[name].to_numpy(zero_copy_only=False)
            found = frame[name].to_numpy()
            if expected.dtype.kind == "f":
                np.testing.assert_array_equal(found.astype(expected.dtype), expected)
            else:
                assert found.tolist() == expected.tolist()


@pytest.mark.slow
def test_the_columns_keep_their_units(published: Publication) -> None:
    leaf = next(Path(published.url).rglob("Npix=*.parquet"))
    field = pq.read_schema(leaf).field("flux_h")
    assert field.metadata[b"unit"] == b"nJy"
    assert field.metadata[b"ucd"] == b"phot.flux"


def listening() -> set[tuple[str, int]]:
    """Where this process can be reached."""
    found = psutil.Process().net_connections()
    return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}


@pytest.mark.slow
def test_publishing_is_nobody_else_s_business(watched: Watched) -> None:
    """Neither open ports nor log settings are left behind."""
    assert watched.opened == {"127.0.0.1"}
    assert listening() <= watched.listening
    assert logging.getLogger().level == watched.level


@pytest.mark.slow
def test_publishing_again_replaces_the_catalogue(published: Publication) -> None:
    """No file of the earlier one is left behind."""
    output = Output(str(Path(published.url).parent))
    stray = Path(output.url).joinpath(*STRAY)
    assert not stray.exists() or pq.read_schema(stray).names != ["x"]
    assert verify_run(output).problems == ()


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_complete_is_refused(run: str, state: str) -> None:
    ledger = Ledger(Output(run))
    ledger.write_run(ledger.read_run() | {"state": state})
    with pytest.raises(CatalogError, match=rf"out: the run is {state}, not complete; run it again"):
        publish_run(Output(run))
    assert not storage.exists(storage.join(run, "catalog"))


@pytest.mark.parametrize("member", ["shards", "ledger", "damage"])
def test_a_run_with_a_lost_or_damaged_tile_is_refused(run: str, member: str) -> None:
    folder = Path(run, "shards" if member == "damage" else member)
    tile = min(folder.iterdir())
    if member == "damage":
        tile.write_bytes(tile.read_bytes()[:-1])
    else:
        tile.unlink()
    with pytest.raises(CatalogError, match=r"out: (tile|shard) y0000x0000: .*run again"):
        publish_run(Output(run))


def test_a_run_without_rows_has_nothing_to_publish(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no rows to publish"):
        publish_shards(Output(str(tmp_path)), 0)


def test_a_missing_package_is_one_line_and_costs_no_catalogue(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Path(run, "catalog", "hats.properties")
    earlier.parent.mkdir()
    earlier.touch()
    monkeypatch.setitem(sys.modules, "hats_import", None)
    with pytest.raises(UserError, match=r"pip install 'deblend-batch\[publish\]'"):
        publish_run(Output(run))
    assert earlier.exists()
