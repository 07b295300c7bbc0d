"""What goes wrong at once in a run on Ray, and a run that has no place there yet.

Workers and drivers that die are in ``tests/cli/test_json_logs_on_ray.py`` and ``test_run_on_ray.py``, and
failures that any place knows in ``test_local.py`` and ``test_faults.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from deblend_batch.catalog.output import Output
from deblend_batch.engine import run as run_module
from deblend_batch.engine.driver import roster
from deblend_batch.engine.run import process_field
from tests.engine.killing_models import saboteur
from tests.support import SmallField

pytestmark = pytest.mark.usefixtures("cluster")


def test_a_run_that_waits_for_a_core_says_so_and_a_bug_then_stops_it_at_once(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows itself as it is; no pair is to blame."""
    total = ray.cluster_resources()["CPU"]
    hog = ray.remote(num_cpus=total)(Hog).remote()
    assert ray.get(hog.holds.remote())
    monkeypatch.setattr(roster, "_WAITING_SECONDS", 1.0)
    said: list[dict[str, Any]] = []

    def release(**words: Any) -> None:
        said.append(words)
        ray.kill(hog)

    monkeypatch.setattr(run_module.log, "warning", lambda event, **words: release(**words))
    config = small_field.on_ray(str(tmp_path / "out"), engine={"actors": 1})
    with pytest.raises(KeyError, match="bug"):
        process_field(config, loader=saboteur(tmp_path, "bug", None))
    assert Output(str(tmp_path / "out")).quarantined() == []
    assert said[0]["each_needs"] == "1 CPU, 0 GPU"
    assert said[0]["free"].startswith(f"0 of {total:g} CPU")


class Hog:
    """Takes what cores there are."""

    def holds(self) -> bool:
        return True
