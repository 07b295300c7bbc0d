"""The output folder: what is written under a name is listed under it, and no secret is shown."""

from __future__ import annotations

import ast
import pickle
from itertools import count
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import deblend_batch
from deblend_batch.catalog.output import Output
from deblend_batch.engine.inputs.work import RunContext

MEMBERS = {
    *(
        "run.json",
        "shards",
        "ledger",
        "quarantine",
        "index",
        "masks.zarr",
        "catalog",
        "report.html",
    ),
}
_numbers = count()

names = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z")


@given(names=st.sets(names, min_size=1, max_size=4))
def test_what_is_written_for_a_tile_is_listed_for_it(names: set[str]) -> None:
    output = Output(f"memory://outputs/{next(_numbers)}/")
    for name in names:
        for url in (output.shard_url, output.receipt_url, output.quarantine_url, output.index_url):
            assert output.create(url(name), b"1")
            assert not output.create(url(name), b"2")
        output.write(output.unused_url(name), b"")
    assert output.shards() == output.receipts() == output.quarantined() == sorted(names)
    assert {receipt.name for receipt in output.newest_receipts()} == names
    assert list(output.read_many([output.shard_url(name) for name in names], 9)) == [b"1"] * len(
        names
    )
    assert set(output.indexes()) == {output.index_url(name) for name in names}
    output.remove_indexes()
    assert output.indexes() == []
    assert output.names() == ["ledger", "quarantine", "shards"]


def test_an_output_shows_no_secret_and_takes_it_along() -> None:
    output = Output("s3://bucket/run/", {"secret": "hunter2"})
    context = RunContext(output, "tiny", None, False, "f", "m")
    shown = f"{output} {output!r} {context} {context.run}"
    assert "hunter2" not in shown
    assert "s3://bucket/run" in shown
    again = pickle.loads(pickle.dumps(context))
    assert again == context
    assert hash(again) == hash(context)
    assert again.options == {"secret": "hunter2"}
    assert Output("s3://bucket/run", {"secret": "other"}) != output


def _joined(tree: ast.AST) -> set[str]:
    """The names that are put behind a folder's URL."""
    calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
    joins = [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"join", "member"}
    ]
    return {
        each.value
        for call in joins
        for each in call.args
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def test_no_other_module_puts_a_member_s_name_behind_an_output_s_url() -> None:
    package = Path(deblend_batch.__file__).parent
    for path in package.rglob("*.py"):
        found = _joined(ast.parse(path.read_text())) & MEMBERS
        assert not found, f"{path.name}: {found}"
    assert _joined(ast.parse("storage.join(url, 'index', name)")) & MEMBERS
