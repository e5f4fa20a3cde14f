"""A study of what is on the Hugging Face Hub: its commits, and no request where none is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax import models, recipes
from kdjax.arms.teacher_cost import cost_by_recipe
from kdjax.config import Config, TaskConfig
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.study import compare
from kdjax.study.artifacts.commits import pin_commits
from kdjax.training.teacher.directories import source_directories
from tests.support import hub_server, small_study
from tests.support.hub_server import FIRST, SECOND, Hub, Repository

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving() as server:
        hub_server.use(server, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture
def recipe(server: Hub, tmp_path: Path) -> Path:
    """A study of one run, whose text and teacher are on the Hub."""
    here = tmp_path / "here"
    shallow = small_study.shallow(here, head=True)
    path = small_study.write(
        here, **shallow, arms={"logit": {}}, seeds=[0], evaluation={"mlm_sequences": 16}
    )
    small_study.make_teacher(here / "encoder", head=True)
    encoder = {file.name: file.read_bytes() for file in (here / "encoder").iterdir()}
    text = {"text.jsonl": (here / "text.jsonl").read_bytes()}
    server.repositories["models/some/bert"] = Repository(commits={FIRST: encoder})
    server.repositories["datasets/some/text"] = Repository(commits={FIRST: text})
    config = recipes.changed(
        recipes.load(path),
        {
            "teacher.source": "hf:some/bert",
            "data.files": "hf://datasets/some/text/*.jsonl",
        },
    )
    path.write_text(recipes.dump(config), encoding="utf-8")
    return path


def move(server: Hub, place: str, changed: dict[str, bytes]) -> None:
    """Move the branch `main` of a repository to a commit with other files."""
    repository = server.repositories[place]
    repository.commits[SECOND] = {**repository.commits[FIRST], **changed}
    repository.branches["main"] = SECOND
    # As in another process, where nothing is remembered.
    hub._commit.cache_clear()


def test_every_name_on_the_hub_gets_its_commit(server: Hub) -> None:
    for place in ("models/some/bert", "datasets/some/text"):
        server.repositories[place] = Repository()
    text = "hf://datasets/some/text"
    config = recipes.changed(
        Config(),
        {
            "teacher.source": "hf:some/bert",
            "data.tokenizer": "hf:some/bert@main",
            "data.files": ["a.txt", f"{text}/*.txt"],
            "evaluation.texts": {"other": f"{text}/b.txt"},
        },
    )
    tasks = {"task": TaskConfig(file=f"{text}/c.csv")}
    config = replace(config, evaluation=replace(config.evaluation, tasks=tasks))
    result, commits = pin_commits(config, {})
    assert result.teacher.source == f"hf:some/bert@{FIRST}"
    assert result.data.tokenizer == f"hf:some/bert@{FIRST}"
    assert result.data.files == ("a.txt", f"{text}@{FIRST}/*.txt")
    assert result.evaluation.texts == {"other": f"{text}@{FIRST}/b.txt"}
    assert result.evaluation.tasks["task"].file == f"{text}@{FIRST}/c.csv"
    assert set(commits.values()) == {FIRST}
    assert len(commits) == 5


def test_stored_commit_goes_before_the_branch_and_a_new_name_is_asked_for(server: Hub) -> None:
    server.repositories["models/some/bert"] = Repository()
    config = recipes.changed(Config(), {"teacher.source": "hf:some/bert@main"})
    held, _ = pin_commits(config, {"hf:some/bert@main": SECOND})
    assert held.teacher.source == f"hf:some/bert@{SECOND}"
    asked, _ = pin_commits(config, {"hf:some/bert@other": SECOND})
    assert asked.teacher.source == f"hf:some/bert@{FIRST}"


def test_recipe_of_this_machine_is_returned_as_it_is() -> None:
    config = recipes.changed(Config(), {"data.files": "https://server/a.txt"})
    assert pin_commits(config, {}) == (config, {})


@pytest.mark.system
def test_price_asks_nothing_of_the_hub(server: Hub, recipe: Path) -> None:
    assert prices(recipes.load(recipe))
    assert not server.requests


def test_price_reads_the_card_of_a_teacher_that_the_cache_has(server: Hub, tmp_path: Path) -> None:
    config = recipes.changed(Config(), {"teacher.source": "hf:some/bert"})
    assert cost_by_recipe(config).training == 0
    files = {"config.json": b"{}", "teacher.json": b'{"training_flops": 5}'}
    hub_server.lay_out(tmp_path / "cache", "models--some--bert", files)
    assert cost_by_recipe(config).training == 5
    assert not server.requests


def test_teacher_of_the_hub_is_the_model_of_the_same_directory(server: Hub, recipe: Path) -> None:
    (teacher,) = source_directories(recipes.load(recipe))
    read = models.from_pretrained("hf:some/bert")
    expected = models.from_pretrained(recipe.parent / "encoder")
    assert read.config == expected.config == models.pretrained_config(teacher.path)
    assert (read.params["mlm"]["bias"] == expected.params["mlm"]["bias"]).all()


@pytest.mark.system
def test_study_holds_on_to_the_commits_that_it_began_with(
    server: Hub, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = compare.compare(recipes.load(recipe), out)
    study = json.loads((out / "study.json").read_text())
    assert study["commits"] == {
        "hf:some/bert": FIRST,
        "hf://datasets/some/text/*.jsonl": FIRST,
    }
    assert study["config"]["teacher"]["source"] == f"hf:some/bert@{FIRST}"
    assert first.teacher is not None
    assert first.teacher.source == f"hf:some/bert@{FIRST}"

    # Both branches move: the study goes on with what it had, a new one takes what there is.
    move(server, "models/some/bert", {"config.json": b"{}"})
    move(server, "datasets/some/text", {"text.jsonl": b'{"text": "w1"}\n'})
    assert compare.compare(recipes.load(recipe), out).runs == first.runs
    with pytest.raises(InputError, match=rf"{SECOND}/config.json"):
        compare.compare(recipes.load(recipe), tmp_path / "new")
    assert not list((tmp_path / "new").glob("[!.]*"))


@pytest.mark.system
def test_study_on_a_gated_teacher_writes_the_token_nowhere(
    server: Hub, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["models/some/bert"].gated = True
    with pytest.raises(InputError, match=r"access is not granted"):
        compare.compare(recipes.load(recipe), tmp_path / "refused")
    assert not list((tmp_path / "refused").glob("[!.]*"))

    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    out = tmp_path / "out"
    compare.compare(recipes.load(recipe), out)
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        assert hub_server.TOKEN.encode() not in path.read_bytes(), path
