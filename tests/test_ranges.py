"""Every number of a recipe has a range that is checked when the recipe is read, and every name that
becomes a path is one that a path can have."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from kdjax import recipes
from kdjax.config import Config, DataConfig, EvaluationConfig, TaskConfig
from kdjax.errors import InputError
from kdjax.storage.files import read_json


def numbers(cls: Any, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Yield the dotted name and the type of every setting that is a number."""
    for name, hint in get_type_hints(cls).items():
        kinds = {hint, *get_args(hint)} & {int, float}
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, f"{prefix}{name}.")
        elif kinds:
            is_list = getattr(hint, "__origin__", None) is tuple
            yield f"{prefix}{name}{'[]' if is_list else ''}", kinds.pop()


NUMBERS = dict(numbers(Config))


def with_value(config: Any, name: str, value: Any) -> Any:
    """Return a config with a setting replaced, by its dotted name."""
    first, _, rest = name.partition(".")
    inner = with_value(getattr(config, first), rest, value) if rest else value
    return dataclasses.replace(config, **{first: inner})


def test_numbers_of_all_sections_are_found() -> None:
    assert len(NUMBERS) > 80
    assert NUMBERS["teacher.head.optimizer.b1"] is float
    assert NUMBERS["student.layers"] is int
    assert NUMBERS["tune.seeds[]"] is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, 10**400, -(10**9)])
def test_number_that_cannot_be_is_refused(value: Any) -> None:
    taken = []
    for setting in NUMBERS:
        name = setting.removesuffix("[]")
        values = (value,) if name != setting else value
        try:
            with_value(Config(), name, values)
        except InputError as e:
            assert "\n" not in str(e) and len(str(e)) < 600, str(e)
            assert name.rpartition(".")[2] in str(e), str(e)
        else:
            taken.append(name)
    assert taken == []


def test_fraction_is_refused_where_a_whole_number_is_expected() -> None:
    for setting, kind in NUMBERS.items():
        if kind is int:
            name = setting.removesuffix("[]")
            with pytest.raises(InputError, match="whole number"):
                with_value(Config(), name, (1.5,) if name != setting else 1.5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seeds", []),
        ("seeds", [0, 0]),
        ("tune.seeds", []),
        ("teacher.train.seeds", [2**32]),
        ("teacher.train.checkpoints", []),
        ("evaluation.probe.strengths", []),
        ("budget.clock", []),
        ("data.tokenizer.size", 10**9),
        ("data.tokenizer.size", 5),
        ("student.init_std", 1e300),
        ("evaluation.mlm_probe.charged", True),
        ("evaluation.mlm_probe.along_the_way", True),
        ("arms", {"a": {"terms": [{"name": "mlm", "weight": math.nan}]}}),
        ("arms", {"a": {"phases": [{"terms": [{"name": "mlm"}], "until": 0}]}}),
        ("arms", {"a": {"start": {"source": "random", "layers": "lower"}}}),
        ("tune.space", {"optimizer.b1": {"low": math.nan, "high": 1.0}}),
    ],
)
def test_value_without_a_meaning_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        recipes.changed(Config(), {setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("student.layers", 0),
        ("teacher.architecture.dropout", 1.0),
        ("train.optimizer.b1", -1.0),
        ("teacher.train.optimizer.eps", 0.0),
        ("teacher.head.optimizer.warmup", 2.0),
    ],
)
def test_section_of_which_there_are_several_is_named(setting: str, value: float) -> None:
    section, _, name = setting.rpartition(".")
    with pytest.raises(InputError, match=rf"^{section}: .*{name} is {value}, expected"):
        recipes.changed(Config(), {setting: value})


@pytest.mark.parametrize("task", [{"file": ""}, {"file": "a", "dev": 0.6, "test": 0.4}])
def test_task_that_cannot_be_is_refused_by_its_name(task: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^evaluation\.tasks\.mine\."):
        EvaluationConfig(tasks={"mine": TaskConfig(**task)})


PATHS = ("mlm/plain", "../../x", "..", ".", "", " ", ".hidden", "-rf", "a\\b")
SECTIONS = ("evaluation.tasks", "evaluation.texts")
"""Sections with names of the user's besides `arms`."""
OTHERS = ("a b", "a\n", "ä", "a" * 65, "<i>", "a:b", 1, False, None)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(pytest.param("arms", name) for name in PATHS + OTHERS),
        *(pytest.param(section, name) for section in SECTIONS for name in ("../../x", 1)),
        *(
            pytest.param(section, name, marks=pytest.mark.exhaustive)
            for section, name in itertools.product(SECTIONS, PATHS + OTHERS)
        ),
    ],
)
def test_name_that_no_path_can_have_is_refused(section: str, name: Any) -> None:
    values = {"arms": {}, "evaluation.tasks": {"file": "a.csv"}, "evaluation.texts": "a.txt"}
    with pytest.raises(InputError, match=rf"^{section} has .*expected"):
        recipes.changed(Config(), {section: {name: values[section]}})


@pytest.mark.parametrize("section", ["arms", "evaluation.texts"])
def test_names_that_differ_in_capitals_alone_are_refused(section: str) -> None:
    values: dict[str, Any] = {"arms": {}, "evaluation.texts": "a.txt"}
    value = values[section]
    with pytest.raises(InputError, match=rf"{section} has 'logit' and 'Logit'"):
        recipes.changed(Config(), {section: {"logit": value, "Logit": value}})


def test_name_of_a_line_in_every_table_is_refused_as_an_arm() -> None:
    with pytest.raises(InputError, match="kdjax uses this one itself"):
        recipes.changed(Config(), {"arms": {"Teacher": {}}})


@pytest.mark.parametrize(
    "name", ["attention_mse+hidden_mse", "two_stage", "mlm-1", "0", "_a", "tiny.bert"]
)
def test_ordinary_name_is_taken(name: str) -> None:
    assert list(recipes.changed(Config(), {"arms": {name: {}}}).arms) == [name]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 20),
        ({"seq_len": 512}, 77),
        ({"seq_len": 32}, 5),
        ({"mlm_probability": 0.6}, 77),
        ({"mlm_probability": 0.99}, 126),
        ({"mlm_probability": 1e-6}, 1),
        ({"max_predictions": 25}, 25),
        ({"seq_len": 16, "max_predictions": 2}, 2),
    ],
)
def test_max_predictions_follow_unless_set(settings: dict[str, Any], expected: int) -> None:
    assert DataConfig(**settings).max_predictions == expected
    dotted = {f"data.{name}": value for name, value in settings.items()}
    assert recipes.changed(Config(), dotted).data.max_predictions == expected


def test_swept_length_takes_max_predictions_along_unless_they_were_set() -> None:
    longer = recipes.changed(Config(), {"data.seq_len": 512})
    assert recipes.changed(longer, {"data.seq_len": 64}).data.max_predictions == 10
    # Set by somebody: it stays.
    generous = recipes.changed(Config(), {"data.max_predictions": 25})
    assert recipes.changed(generous, {"data.seq_len": 64}).data.max_predictions == 25


@pytest.mark.parametrize(
    "settings",
    [
        {"mlm_probability": 0.6, "max_predictions": 20},
        {"seq_len": 512, "max_predictions": 20},
        {"max_predictions": 128},
        {"max_predictions": -1},
    ],
)
def test_max_predictions_that_cut_the_masking_rate_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"data.max_predictions is .*expected at least"):
        DataConfig(**settings)


def test_json_that_says_two_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": {"b": 1, "b": 2}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json: .* 'b' twice in one object"):
        read_json(path)
