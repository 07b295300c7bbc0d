"""What the tests of runs share."""

from __future__ import annotations

import pytest

from deblend_batch.engine.run import process_field
from tests.support import SmallField, shards_of


@pytest.fixture(scope="session")
def undisturbed(
    small_field: SmallField, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The shards of a run of the small field that nothing disturbed, without Ray."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert process_field(small_field.config(str(output))).exit_code == 0
    return shards_of(output)
