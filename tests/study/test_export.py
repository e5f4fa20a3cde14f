"""`kdjax export`: a finished run as a directory for other libraries, its card, and what is refused.

`tests/parity/test_export.py` has the directories loaded by transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tokenizers
import yaml
from safetensors.numpy import load_file

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import Config
from kdjax.evaluation.finetuning import FinetunedTask, Setting
from kdjax.models import from_pretrained, zoo
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import to_plain
from kdjax.study.runs.recorded_run import PARAMS
from kdjax.study.runs.snapshots import FACTS, FOLDER, Snapshot, snapshot_name
from kdjax.training.checksum import sha256
from kdjax.training.params_file import load_params, save_params
from tests.study.conftest import Ended, kdjax
from tests.support import hub_server, small_study, tiny
from tests.support.corpora import make_tokenizer
from tests.support.finished_run import recipe_in, write_run
from tests.support.hub_server import TOKEN

TEACHER = {"source": "hf:some/bert@main", "architecture": small_study.TEACHER}


def finished(
    directory: Path, *, arm: str = "scratch", details: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a finished run of an arm, by hand."""
    config = recipe_in(directory, arms={arm: {}}, teacher=TEACHER, **changes)
    teacher = {"source": TEACHER["source"]} if arm != "scratch" else None
    run = directory / "study" / "runs" / f"{arm}-seed0"
    return write_run(run, config, params_of(config), details or {}, arm=arm, teacher=teacher)


def params_of(config: Config) -> Any:
    return tiny.params(zoo.resolve(config.student), 0)


def head_of(card: str) -> dict[str, Any]:
    """Return the settings at a card's beginning."""
    nothing, head, _ = card.split("---\n", 2)
    assert nothing == ""
    settings: dict[str, Any] = yaml.safe_load(head)
    return settings


def exported(run: Path, out: Path, *words: str) -> Ended:
    return kdjax("export", run, "--out", out, *words)


def test_exported_student_is_read_back_bit_for_bit_with_its_card(tmp_path: Path) -> None:
    run = finished(tmp_path)
    ended = exported(run, tmp_path / "out", "--license", "cc-by-sa-4.0")
    assert ended.status == 0, ended.err
    assert ended.out == f"{tmp_path / 'out'}: AutoModelForMaskedLM loads it\n"
    back = from_pretrained(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, back.params, load_params(run / PARAMS))
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = head_of(card)
    assert head["license"] == "cc-by-sa-4.0"
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "fill-mask"
    for part in ("text.jsonl", "fewer than 512", "2404.19319", "no results yet", "AutoTokenizer"):
        assert part in card
    # What is published names no folder of this machine.
    assert str(tmp_path) not in card


def test_arm_without_a_trained_head_leaves_without_it_and_says_so(tmp_path: Path) -> None:
    run = finished(tmp_path, arm="minilm")
    ended = exported(run, tmp_path / "out")
    assert ended.out.endswith("AutoModel loads it; it has no trained MLM head\n")
    assert "mlm" not in from_pretrained(tmp_path / "out").params
    assert read_json(tmp_path / "out" / "config.json")["architectures"] == ["BertModel"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert head_of(card)["pipeline_tag"] == "feature-extraction"
    assert head_of(card)["license"] == "unknown"
    assert "It has no trained MLM head" in card
    assert "`hf:some/bert@main`" in card


def test_sentence_transformers_gets_the_mean_of_the_last_layer(tmp_path: Path) -> None:
    run = finished(tmp_path)
    assert exported(run, tmp_path / "out", "--format", "sentence-transformers").status == 0
    out = tmp_path / "out"
    assert [module["path"] for module in read_json(out / "modules.json")] == ["", "1_Pooling"]
    pooling = read_json(out / "1_Pooling" / "config.json")
    assert pooling["word_embedding_dimension"] == small_study.STUDENT["width"]
    modes = {name for name, value in pooling.items() if value is True}
    assert modes == {"pooling_mode_mean_tokens", "include_prompt"}
    assert read_json(out / "sentence_bert_config.json")["max_seq_length"] == 16
    assert "mlm" not in from_pretrained(out).params
    assert head_of((out / "README.md").read_text())["library_name"] == "sentence-transformers"


def test_fine_tuned_student_leaves_with_its_head_and_labels(tmp_path: Path) -> None:
    evaluation = {
        "protocols": ["fixed"],
        "tasks": {
            "halves": {
                "file": str(small_study.make_task(tmp_path / "halves.csv", "halves")),
                "dev": 0.2,
                "test": 0.2,
            }
        },
    }
    tuned = FinetunedTask(
        "halves", "fixed", "", Setting(1e-2, 8, None, 3), 0.5, {}, {}, {}, (), 0, 0
    )
    run = finished(tmp_path, details={"fixed.halves": tuned}, evaluation=evaluation)
    ended = exported(run, tmp_path / "out", "--task", "halves")
    assert ended.status == 0, ended.err
    assert "AutoModelForSequenceClassification loads it; halves, the run recorded no" in ended.out
    settings = read_json(tmp_path / "out" / "config.json")
    assert settings["architectures"] == ["BertForSequenceClassification"]
    assert settings["id2label"] == {"0": "a", "1": "b"}
    assert head_of((tmp_path / "out" / "README.md").read_text())["pipeline_tag"] == (
        "text-classification"
    )
    # It was tuned: three steps changed the encoder.
    before = load_params(run / PARAMS)["embeddings"]["word"]["embedding"]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    after = tensors["bert.embeddings.word_embeddings.weight"]
    assert np.abs(after - before).max() > 1e-3
    # Nothing is left of the state of its training.
    assert not list((run / "finetuning").rglob("*.safetensors"))


def test_pushed_export_is_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path)
    with hub_server.serving() as server:
        hub_server.use(server, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        ended = exported(run, tmp_path / "out", "--push", "me/student", "--private")
        assert ended.status == 0, ended.err
        repository = server.repositories["models/me/student"]
        pushed = repository.commits[repository.branches["main"]]
        assert server.messages == ["scratch, seed 0, by kdjax"]
        assert server.private == ["me/student"]
        assert from_pretrained("hf:me/student").config == from_pretrained(tmp_path / "out").config
    for path in (tmp_path / "out").iterdir():
        if not path.name.startswith("."):
            assert pushed[path.name] == path.read_bytes()


def with_snapshots(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Write a finished run with two snapshots; return it, and the parameters of each revision."""
    run = finished(directory)
    params = {"main": load_params(run / PARAMS)}
    ledger = replace(Ledger.open(Budget.flops(10**8)), steps_by_phase=(3,))
    for words in (1000, 2_000_000):
        name = snapshot_name(words)
        changed = jax.tree.map(lambda leaf, by=words: leaf + np.float32(by), params["main"])
        facts = Snapshot(
            name,
            words,
            words + 7,
            3,
            48,
            45,
            40,
            {**ledger.spent, "total": 123_456},
            sha256(changed),
        )
        save_params(run / FOLDER / name / PARAMS, changed)
        write_json(run / FOLDER / name / FACTS, to_plain(facts))
        params[name] = changed
    return run, params


def test_revisions_are_folders_and_branches_with_weights_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, params = with_snapshots(tmp_path)
    out = tmp_path / "out"
    with hub_server.serving() as server:
        hub_server.use(server, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        ended = exported(run, out, "--revisions", "--push", "me/student")
        assert ended.status == 0, ended.err
        repository = server.repositories["models/me/student"]
        assert repository.branches.keys() == {"main", "chck_1K", "chck_2M"}
        # The finished student is last, so that a branch does not begin with its weights.
        assert server.messages == [
            "scratch, seed 0 after 2,000,007 words, by kdjax",
            "scratch, seed 0 after 1,007 words, by kdjax",
            "scratch, seed 0, by kdjax",
        ]
        for name, expected in params.items():
            pushed = repository.commits[repository.branches[name]]
            weights = (out / name / "model.safetensors").read_bytes()
            assert pushed["model.safetensors"] == weights
            assert not any("/" in path for path in pushed)
            back = from_pretrained(out / name).params
            jax.tree.map(np.testing.assert_array_equal, back, expected)
    card = (out / "chck_2M" / "README.md").read_text(encoding="utf-8")
    for part in ("at which it had seen 2,000,000 words", "| 2,000,007 |", "| 123,456 |"):
        assert part in card
    assert "on its way" not in (out / "main" / "README.md").read_text(encoding="utf-8")


def test_one_revision_is_the_directory_itself(tmp_path: Path) -> None:
    run, params = with_snapshots(tmp_path)
    ended = exported(run, tmp_path / "out", "--revision", "chck_1K")
    assert ended.status == 0, ended.err
    assert ended.out == (f"{tmp_path / 'out'}: AutoModelForMaskedLM loads it; after 1,007 words\n")
    back = from_pretrained(tmp_path / "out").params
    jax.tree.map(np.testing.assert_array_equal, back, params["chck_1K"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--revision", "chck_2m"], "--revision is 'chck_2m', expected a snapshot of"),
        (["--revision", "chck_1K", "--revisions"], "--revision and --revisions, expected one of"),
        (["--revisions", "--task", "mood"], "--task with a snapshot, expected one of them"),
        (["--revision", "chck_1K", "--private"], "--private without --push"),
        (["--revision", "chck_2M"], "snapshots/chck_2M/params.safetensors: the parameters' SHA"),
    ],
)
def test_impossible_revision_is_one_line_and_nothing_is_written(
    tmp_path: Path, words: list[str], line: str
) -> None:
    run, params = with_snapshots(tmp_path)
    # Another snapshot's parameters are found out.
    save_params(run / FOLDER / "chck_2M" / PARAMS, params["chck_1K"])
    ended = exported(run, tmp_path / "out", *words)
    assert ended.status == 2
    assert line in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_run_without_snapshots_has_no_revisions(tmp_path: Path) -> None:
    ended = exported(finished(tmp_path), tmp_path / "out", "--revisions")
    assert ended.status == 2
    assert (
        "the run kept no snapshots, expected one that was made with train.checkpoint" in ended.err
    )


def test_pair_types_are_told_by_the_exported_tokenizer(tmp_path: Path) -> None:
    """A tokenizer of RoBERTa's kind says type 0 of both texts; a student with two types was given
    others. The file's own truncation and padding, which are on, go."""
    run = finished(tmp_path)
    path = Path(make_tokenizer(tmp_path / "tokenizer.json"))
    content = read_json(path)
    content["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", 3],
        "cls": ["[CLS]", 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    write_json(path, content)
    assert exported(run, tmp_path / "out").status == 0
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    encoding = backend.encode("w1 w2", "w3")
    assert encoding.tokens == ["[CLS]", "w1", "w2", "[SEP]", "[SEP]", "w3", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 0, 0, 1, 1]
    assert encoding.offsets[1:3] == [(0, 2), (3, 5)]


def test_tokenizer_without_a_frame_gets_the_one_it_was_read_by(tmp_path: Path) -> None:
    run = finished(tmp_path)
    path = Path(make_tokenizer(tmp_path / "tokenizer.json"))
    content = read_json(path)
    content["post_processor"] = None
    write_json(path, content)
    assert exported(run, tmp_path / "out").status == 0
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert backend.encode("w1").tokens == ["[CLS]", "w1", "[SEP]"]


def fill(directory: Path) -> None:
    (directory / "out").mkdir()
    (directory / "out" / "mine.txt").write_text("mine")


@pytest.mark.parametrize(
    ("changes", "spoil", "words", "line"),
    [
        ({}, None, ["--task", "mood"], "--task is 'mood', expected a task that the run was measu"),
        ({}, None, ["--protocol", "grid"], "--protocol without --task"),
        ({}, None, ["--private"], "--private without --push"),
        ({}, None, ["--revision", "b"], "--revision without --push"),
        ({}, None, ["--format", "onnx"], "--format is 'onnx', expected transformers or sentence-"),
        ({}, None, ["--license", "My Own"], "--license is 'My Own', expected an identifier of"),
        ({}, fill, [], "holds files, expected an empty directory, or none"),
        (
            {"student": {**small_study.STUDENT, "norm": "pre", "gelu": "tanh"}},
            None,
            [],
            "no class of transformers computes it; the nearest, roberta-prelayernorm, has gelu",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(
    tmp_path: Path,
    changes: dict[str, Any],
    spoil: Callable[[Path], None] | None,
    words: list[str],
    line: str,
) -> None:
    run = finished(tmp_path, **changes)
    if spoil is not None:
        spoil(tmp_path)
    ended = exported(run, tmp_path / "out", *words)
    assert ended.status == 2
    assert line in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.system
def test_export_of_trained_students_of_two_families_has_ledger_and_verdict_on_its_card(
    tmp_path: Path,
) -> None:
    settings = small_study.settings(
        tmp_path,
        arms={
            "scratch": {},
            "modern": {
                "preset": "scratch",
                "student": {
                    "family": "modernbert",
                    "norm": "pre",
                    "layers": 2,
                    "attention_window": 4,
                    "global_every": 2,
                },
            },
        },
        budget={"tokens": 512},
        seeds=[0],
        evaluation={"mlm_sequences": 8, "mlm_probe": {"tokens": 0}, "protocols": []},
    )
    del settings["teacher"]
    settings["data"]["tokenizer"] = str(tmp_path / "tokenizer.json")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(settings), encoding="utf-8")
    study = tmp_path / "study"
    ended = kdjax("compare", recipe, "--out", study)
    assert ended.status == 0, ended.err
    for arm, model_type in (("scratch", "bert"), ("modern", "modernbert")):
        run = study / "runs" / f"{arm}-seed0"
        assert exported(run, tmp_path / arm).status == 0
        assert read_json(tmp_path / arm / "config.json")["model_type"] == model_type
        result = read_json(run / "result.json")
        card = (tmp_path / arm / "README.md").read_text(encoding="utf-8")
        for value in (result["spent"]["total"], result["steps"], result["tokens_seen"]):
            assert f" {value:,} |" in card
        other = {"scratch": "modern", "modern": "scratch"}[arm]
        assert f"| `{other}` |" in card
    assert (
        "token_type_ids"
        in read_json(tmp_path / "scratch" / "tokenizer_config.json")["model_input_names"]
    )
    modern = read_json(tmp_path / "modern" / "tokenizer_config.json")
    assert modern["model_input_names"] == ["input_ids", "attention_mask"]
