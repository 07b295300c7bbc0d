"""The config: defaults, overrides, and mistakes that name their remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deblend_batch.config import RunConfig, load_config, make_config
from deblend_batch.errors import ConfigError, NotFoundError

LEAST = {"field": "/data/f.zarr", "detections": "/data/d.parquet", "output": "/data/out"}


def test_the_contract_s_example_is_a_config() -> None:
    text = """
field: s3://survey/cosmos.zarr
detections: s3://survey/cosmos.parquet
output: s3://catalogs/cosmos-run1
model: blend2mask2flux-small
pairs: {max_separation: 2.0}
tiles: {size: 2048}
"""
    import yaml

    config = make_config(yaml.safe_load(text))
    assert config.model == "blend2mask2flux-small"
    assert config.field == "s3://survey/cosmos.zarr"


def test_defaults_are_the_contract_s() -> None:
    config = make_config(LEAST)
    assert (config.pairs.max_separation, config.tiles.size) == (2.0, 2048)


def test_overrides_replace_and_none_does_not(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("field: f\ndetections: d\noutput: o\npairs: {max_separation: 3, table: p}\n")
    config = load_config(str(file), {"pairs.max_separation": 1.5, "tiles.size": 512, "model": None})
    assert config.pairs.max_separation == 1.5
    assert config.pairs.table == os.path.abspath("p")
    assert config.tiles.size == 512
    assert config.field == os.path.abspath("f")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feild": "x"}, "unknown key 'feild'; did you mean 'field'"),
        ({"tiles": {"size": True}}, r"tiles\.size is true: yes or no, where a number"),
        ({"output": False}, "output is false: yes or no"),
        ({"tiles": {"sise": 5}}, r"unknown key 'tiles.sise'; did you mean 'tiles.size'"),
        (
            {"max_separation": 2},
            r"unknown key 'max_separation'; did you mean 'pairs.max_separation'",
        ),
        (
            {"zzz": 2},
            "unknown key 'zzz'; docs/config.md lists the keys; the sections are pairs, blends, ti",
        ),
        (
            {"engine": {"feed": "fast", "attemps": 3}, "modle": "x"},
            "unknown key 'engine.attemps'; did you mean 'engine.attempts'",
        ),
        (
            {"engine": {"feed": "fast"}, "modle": "x"},
            "unknown key 'modle'; did you mean 'model'",
        ),
        ({"tile_size": 3}, "unknown key 'tile_size'; did you mean 'tiles.size'"),
        ({"tiles": {"foo": 1}}, "unknown key 'tiles.foo'; 'tiles' has the keys: size, max_pairs$"),
        ({"pairs": 3}, "pairs must be a section of keys, not 3$"),
        ({"pairs": None}, "pairs must be a section of keys, not null$"),
        ({"columns": ["id"]}, r"columns must be a section of keys, not \['id'\]$"),
        ({"columns": {"id": 3}}, "columns must name a column for 'id': NAME, a list"),
        (
            {"engine": {"feed": "fast"}},
            "engine.feed must be 'auto' or 'fused', not 'fast'",
        ),
        (
            {"engine": {"feed": "split"}},
            r"engine.feed 'split' is no more: .* give engine.gpus_per_actor: 0.25",
        ),
        ({1: 2}, "1 must be text, not 1; put it in quotes$"),
        ({"tiles": {"size": 3}}, "tiles.size must be greater than or equal to 64, not 3$"),
        ({"tiles": {"size": "big"}}, "tiles.size must be a valid integer, not 'big'$"),
        ({"pairs": {"max_separation": -1}}, "pairs.max_separation must be greater than 0, not -1$"),
        ({"output": None}, "output must be a valid string, not null$"),
        ({"survey": ["a"]}, "give exactly one of 'field' and 'survey'"),
        ({"field": "/f/b*.zarr"}, r"names one field; of several give 'survey: /f/b\*\.zarr'"),
        ({"detections": None}, "'detections' is missing"),
        (
            {"field": None, "survey": [{"field": "a"}], "detections": None},
            "'detections' is missing",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:24],
)
def test_mistakes_are_one_line_that_names_the_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(LEAST | changes, where="run.yaml")
    assert str(caught.value).startswith("run.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("survey", "message"),
    [
        (3, "survey must be a glob, or a list of one or more fields$"),
        ([], "survey must be a glob, or a list of one or more fields$"),
        ([3], "survey must list URLs, or sections of 'field' and 'detections'$"),
        ([{"field": "a", "detectoins": "b"}], "unknown key .*; did you mean 'survey.detections'"),
        ([{"detections": "b"}], r"key 'survey\.0\.field' is missing$"),
        ([{"field": 3}], r"survey\.0\.field must be a valid string, not 3$"),
    ],
    ids=["number", "empty", "numbers", "unknown key", "no field", "field is a number"],
)
def test_a_survey_s_mistakes_are_in_the_user_s_words(survey: Any, message: str) -> None:
    values = {"survey": survey, "detections": "d", "output": "o"}
    with pytest.raises(ConfigError, match=f"^run.yaml: {message}"):
        make_config(values, where="run.yaml")


def test_a_flag_does_not_hide_what_is_no_section() -> None:
    with pytest.raises(ConfigError, match=r"^config: pairs must be a section of keys, not 3$"):
        make_config(LEAST | {"pairs": 3}, {"pairs.max_separation": 1.5})


@pytest.mark.parametrize("value", ["hunter2", ["hunter2"], {5: "hunter2"}])
def test_a_mistyped_secret_is_not_shown(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config: storage_options") as caught:
        make_config(LEAST | {"storage_options": value})
    assert "hunter2" not in str(caught.value)


def test_given_storage_options_replace_the_file_s(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("field: f\ndetections: d\noutput: o\nstorage_options: {anon: true}\n")
    assert load_config(str(file)).storage_options == {"anon": True}
    assert load_config(str(file), options={"key": "me"}).storage_options == {"key": "me"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none.yaml: no such file or object"):
        load_config(str(tmp_path / "none.yaml"))


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("field: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(str(file))


def test_relative_paths_are_refused_inside_a_ray_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(
        ConfigError, match=r"output: .out. is a relative path.*absolute path or a URL"
    ):
        make_config(LEAST | {"output": "out"})
    assert make_config(LEAST).output == "/data/out"


def test_secrets_stay_out_of_what_is_written() -> None:
    config = make_config(LEAST | {"storage_options": {"secret": "hunter2"}})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.public())


def test_a_survey_is_a_glob_or_a_list() -> None:
    base = {key: value for key, value in LEAST.items() if key != "field"}
    assert make_config(base | {"survey": "/data/*.zarr"}).survey == "/data/*.zarr"
    entries = [{"field": "/a.zarr", "detections": "/a.fits"}, "/b.zarr"]
    survey = make_config(base | {"survey": entries}).survey
    assert isinstance(survey, list)
    assert survey[1] == "/b.zarr"


def test_the_config_is_frozen() -> None:
    config = make_config(LEAST)
    assert isinstance(config, RunConfig)
    with pytest.raises(ValueError, match="frozen"):
        config.output = "elsewhere"  # type: ignore[misc]
