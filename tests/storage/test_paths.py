"""Paths that users write: what is taken, what is expanded, and what is refused, wherever they
stand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kdjax import recipes
from kdjax.cli import command_line
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.storage.paths import expand_path, local_path
from kdjax.study.runs.run_backup import RunBackup
from kdjax.text import sources

SETTINGS = (
    "data.files",
    "data.tokenizer",
    "data.prepared",
    "teacher.source",
    "cache.source",
    "tuning",
    "plan.pilot",
    "train.checkpoint.directory",
)
ELSEWHERE = ("data.files", "train.checkpoint.directory")
"""Settings that may name a place in a bucket."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_tilde_is_the_home_directory(home: Path) -> None:
    assert local_path("~/a", "--out") == home / "a"
    assert local_path("a/~", "--out") == Path("a/~")
    assert sources.locate("~/text.txt") == home / "text.txt"
    assert expand_path("gs://bucket/a", "here", bucket=True) == "gs://bucket/a"


def test_dots_are_directories_with_a_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "a").mkdir()
    monkeypatch.chdir(home / "a")
    assert local_path(".", "--out") == home / "a"
    assert local_path("..", "--out") == home
    assert local_path("./b", "--out") == Path("b")


def test_checkpoint_directory_under_tilde_is_in_the_home_directory(home: Path) -> None:
    backup = RunBackup("~/kept", Path("out/runs/a-seed0"))
    assert str(backup.directory) == str(home / "kept/runs/a-seed0")


@pytest.mark.parametrize("words", [["audit", "~/a"], ["merge", "~/a", "--out", "~/b"]])
def test_paths_on_the_command_line_are_expanded(home: Path, words: list[str]) -> None:
    _, options = command_line.read(words)
    paths = [value for value in vars(options).values() if isinstance(value, Path)]
    paths += getattr(options, "parts", [])
    assert paths and all(path.is_relative_to(home) for path in paths)


IMPOSSIBLE = [
    (" ", r"expected a path"),
    ("a\0b", r"without NUL"),
    ("s3:/bucket/a", r"expected a path"),
    ("~no-such-user-here/a", r"~no-such-user-here has no home"),
    ("a" * 300, r"at most 4,095 bytes, and 255 between two slashes"),
    ("a/" * 3000, r"at most 4,095 bytes"),
]
"""Paths that no system has, and what is said of each."""


@pytest.mark.parametrize(
    ("setting", "path", "message"),
    [
        *((SETTINGS[0], *case) for case in IMPOSSIBLE),
        *((setting, *IMPOSSIBLE[1]) for setting in SETTINGS[1:]),
        *(
            pytest.param(setting, *case, marks=pytest.mark.exhaustive)
            for setting, case in itertools.product(SETTINGS[1:], IMPOSSIBLE)
        ),
    ],
)
def test_impossible_path_is_refused_when_the_recipe_is_read(
    setting: str, path: str, message: str
) -> None:
    with pytest.raises(InputError, match=rf"{setting} is .*{message}"):
        recipes.changed(Config(), {setting: path})


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name not in ELSEWHERE])
def test_bucket_is_refused_where_only_text_and_checkpoints_can_be(setting: str) -> None:
    with pytest.raises(
        InputError, match=r"only files of text and train.checkpoint.directory can be elsewhere"
    ):
        recipes.changed(Config(), {setting: "gs://bucket/a"})


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("teacher.source", "hf:some/bert/model"),
        ("teacher.source", "hf://some/bert/model"),
        ("data.tokenizer", "hf:bert"),
        ("data.files", "hf:some/text"),
        ("data.files", "hf://datasets/some/text"),
        ("data.files", "hf://datasets/some/text/../a.txt"),
        ("data.files", "https://server"),
    ],
)
def test_ill_formed_name_elsewhere_is_refused_when_the_recipe_is_read(
    setting: str, name: str
) -> None:
    with pytest.raises(InputError, match=rf"{setting} is .*expected (hf:|PROTOCOL:)"):
        recipes.changed(Config(), {setting: name})


@pytest.mark.parametrize("out", ["", " ", "gs://bucket/out", "gs:/bucket/out"])
@pytest.mark.parametrize("words", [["merge", "a", "--out"], ["audit"]])
def test_impossible_path_on_the_command_line_is_refused(words: list[str], out: str) -> None:
    with pytest.raises(InputError, match=r"(--out|DIR) is .*expected a path on this machine"):
        command_line.read([*words, out])
