"""Users and passwords of URLs, well-formed or not: refused, and repeated by no message."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kdjax import recipes
from kdjax.cli import command_line
from kdjax.config import Config, EvaluationConfig, TaskConfig
from kdjax.errors import InputError
from kdjax.storage.paths import local_path
from kdjax.storage.secrets import has_user, without_user

SECRET = "Swordfish"
WITH_USER = (
    f"https://user:{SECRET}@host/a.csv",
    f"https://{SECRET}@host/a.csv",
    f"https://user:{SECRET}/more@host/a.csv",
    f"https:user:{SECRET}@host/a.csv",
    f"https:/user:{SECRET}@host/a.csv",
    f"//user:{SECRET}@host/a.csv",
    f"//{SECRET}@host/a.csv",
    f"user:{SECRET}@host/a.csv",
    f"simplecache::https://user:{SECRET}@host/a.csv",
    f"zip://a.csv::https://user:{SECRET}@host/a.zip",
    f"HTTPS://user:{SECRET}@host/a.csv?signature={SECRET}#{SECRET}",
    f"gs://user:{SECRET}@bucket/a.csv",
    f"hf://user:{SECRET}@host/owner/name/a.csv",
    f"hf://{SECRET}@host/owner/name/a.csv",
    f"tfds://user:{SECRET}@host/a",
    f"package:https://user:{SECRET}@host/a",
)
SETTINGS = (
    "data.files",
    "data.tokenizer",
    "data.teacher_tokenizer",
    "data.prepared",
    "teacher.source",
    "tuning",
    "train.checkpoint.directory",
    "evaluation.glue",
    "evaluation.babylm",
    "evaluation.minimal_pairs.directory",
)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        *(pytest.param("data.files", text) for text in WITH_USER),
        *(pytest.param(setting, WITH_USER[0]) for setting in SETTINGS[1:]),
        *(
            pytest.param(setting, text, marks=pytest.mark.exhaustive)
            for setting, text in itertools.product(SETTINGS[1:], WITH_USER[1:])
        ),
    ],
)
def test_secret_is_refused_by_every_setting_and_not_repeated(setting: str, text: str) -> None:
    with pytest.raises(InputError) as refusal:
        recipes.changed(Config(), {setting: text})
    assert setting in str(refusal.value)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("text", WITH_USER)
def test_secret_in_the_file_of_a_task_is_not_repeated(text: str) -> None:
    with pytest.raises(InputError, match=r"^evaluation.tasks.t.file is ") as refusal:
        EvaluationConfig(tasks={"t": TaskConfig(text)})
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("text", WITH_USER)
def test_secret_in_a_path_on_the_command_line_is_not_repeated(text: str) -> None:
    with pytest.raises(InputError, match=r"^--out is ") as refusal:
        local_path(text, "--out")
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("setting", ["evaluation.suite", "data", "data.seq_len", "arms"])
def test_secret_in_a_setting_that_is_no_path_is_not_repeated(tmp_path: Path, setting: str) -> None:
    (tmp_path / "a.yaml").write_text("arms: {scratch: {}}")
    words = [str(tmp_path / "a.yaml"), "--out", str(tmp_path / "out")]
    words += [f"--{setting}", f"https://user:{SECRET}@host/a"]
    with pytest.raises(InputError, match=r"https://host/a") as refusal:
        command_line.read(["prepare", *words])
    assert SECRET not in str(refusal.value)


def test_signature_of_a_url_where_a_path_is_expected_is_not_repeated() -> None:
    with pytest.raises(InputError, match=r"is 'https://host/a', expected a path") as refusal:
        recipes.changed(Config(), {"evaluation.glue": f"https://host/a?signature={SECRET}"})
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "plain/a@b.csv",
        "/data/me@host/a.csv",
        "./a:b@c.csv",
        "a@b",
        "hf:some/bert@v1",
        "hf:bert@v1",
        "hf://datasets/some/text@main/a.csv",
        "tfds:/data/glue@2:train",
        "package:name/a@b.csv",
        "gs://bucket/a@b/c",
        "https://host/@me/a.txt",
        "https://host:8080/a@b.txt",
    ],
)
def test_at_sign_of_a_path_or_a_revision_is_no_user(text: str) -> None:
    assert not has_user(text)
    assert without_user(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pw@host/a.csv?x=1", "https://host/a.csv"),
        ("simplecache::https://user:pw@host/a", "simplecache://host/a"),
        ("user:pw@host/a", "host/a"),
    ],
)
def test_url_is_shown_without_its_user(text: str, shown: str) -> None:
    assert without_user(text) == shown
