"""Records that anyone may have written are of their type, or damaged in one line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.catalog.records import QuarantineRecord, Receipt, parsed, parsed_run
from deblend_batch.errors import CatalogError
from tests.catalog.test_ledger import receipt
from tests.support import run_file

RECORD = QuarantineRecord("y0", "reason", "Error", 1, [(9, 1, 2)])
DOCUMENTS: dict[str, dict[str, Any]] = {
    "receipt": asdict(receipt("y0")),
    "quarantine": asdict(RECORD),
    "run": dict(run_file()),
}


def read(kind: str, content: bytes) -> object:
    """Read a document as its kind."""
    if kind == "run":
        return parsed_run("/out/run.json", content)
    if kind == "receipt":
        return parsed(Receipt, "/out/ledger/y0.json", content)
    return parsed(QuarantineRecord, "/out/quarantine/y0.json", content)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_written_is_read(kind: str) -> None:
    found = read(kind, json.dumps(DOCUMENTS[kind]).encode())
    again = found if isinstance(found, dict) else asdict(found)  # type: ignore[call-overload]
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(DOCUMENTS[kind]))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([2**63, -(10**400), 1e308, "nan", "9" * 5000, "0001-01-01T00:00:00+14:00"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    below = [
        path
        for key, each in inner
        for path in (paths(each, (*at, key)) if isinstance(each, dict | list) else [(*at, key)])
    ]
    return [*([at] if at else []), *below]


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any]) -> bytes:
    """Drop, replace or wrap some values of a valid document."""
    document = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        places = paths(document)
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        parent = document
        for key in above:
            parent = parent[key]
        how = draw(st.sampled_from(["drop", "replace", "wrap", "nest"]))
        if how == "drop":
            del parent[last]
        elif how == "replace":
            parent[last] = draw(values)
        elif how == "wrap":
            parent[last] = [parent[last]]
        else:
            for _ in range(draw(st.integers(1, 40))):
                parent[last] = {"inside": parent[last]}
    return json.dumps(document).encode()


@pytest.mark.parametrize("kind", DOCUMENTS)
@given(st.data())
def test_a_record_is_of_its_type_or_damaged_in_one_line(kind: str, data: st.DataObject) -> None:
    content, said = data.draw(mutated(DOCUMENTS[kind])), ""
    try:
        read(kind, content)
    except CatalogError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe{", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"tile": "y0", "tile": "y1"}', "a key stands twice"),
        (b'{"tile": NaN}', "NaN is no number"),
        (b'{"tile": ' + b"9" * 10_000 + b"}", "Exceeds the limit"),
        (b'{"tile": "y0"', "Expecting"),
    ],
)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_no_json_of_ours_says_why(kind: str, content: bytes, why: str) -> None:
    with pytest.raises(CatalogError, match=rf"damaged \(.*{why}.*\); remove it and run again"):
        read(kind, content)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"updated_at": "yesterday"}, "updated_at: Invalid isoformat"),
        ({"updated_at": "2026-01-01T00:00:00"}, "updated_at: has no time zone"),
        ({"updated_at": 1e308}, "updated_at: Input should be a valid string"),
        ({"state": "done"}, "state: Input should be 'running'"),
        ({"totals": {}}, "totals.pairs: Field required"),
        ({"fingerprint": "F" * 64}, "fingerprint: String should match"),
        ({"memory": {"actor": 10**30}}, "memory: holds a number that is too large"),
        ({"config": {"a": {"b": {"c": [[[[[[1]]]]]]}}}}, "config: is nested deeper than 8"),
    ],
)
def test_a_run_json_of_wrong_values_names_the_key(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CatalogError, match=rf"run.json: damaged \({why}"):
        read("run", json.dumps(DOCUMENTS["run"] | changes).encode())
