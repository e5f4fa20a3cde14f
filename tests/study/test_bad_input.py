"""Whatever a user can get wrong gets one line and status 2, and leaves the output directory to a
corrected recipe."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from kdjax.budget.price import Price
from kdjax.cli import main
from kdjax.errors import InUse
from kdjax.progress import Progress
from kdjax.storage import locks
from kdjax.study import compare
from kdjax.study.study_plan import StudyPlan
from kdjax.training.arm import Arm
from tests.study.conftest import kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]


ALONE = ("--arms", "{scratch: {}}", "--seeds", "[0]", "--evaluation.tasks", "{}")
"""A study of one short run."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study.write(tmp_path_factory.mktemp("recipe"))


def refused(message: str, *words: str | Path) -> None:
    """Assert that the command ends with status 2 and one line that says this."""
    ended = kdjax(*words)
    assert ended.status == 2, ended.err
    assert re.search(message, ended.complaint), ended.err
    assert "Traceback" not in ended.err


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def teacher(recipe: Path, to: Path, change: Callable[[Path], object]) -> Path:
    """Copy the recipe's teacher with something changed."""
    shutil.copytree(recipe.parent / "encoder", to)
    change(to)
    return to


def halve(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def rename_token(path: Path) -> None:
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary["zzz"] = vocabulary.pop(last)
    path.write_text(json.dumps(tokenizer))


SETTINGS = [
    ("--data.lenght 3", r"unknown setting '--data.lenght' \(did you mean '--data.seq_len'\?\)"),
    ("--data.seq_len many", r"data.seq_len.*Expected a int"),
    ("--student.heads 3", r"3 heads do not divide the width 16"),
    ("--student.heads 4", r"arms.tinybert: attention_mse: .*4.*2"),
    (
        "--student.layers 3",
        r"arms.tinybert: attention_mse: .*3.*2|arms.tinybert: attention_mse: .*2.*3",
    ),
    (
        "--student.max_positions 12",
        r"data.seq_len is 16, expected at most student.max_positions, 12",
    ),
    (
        "--teacher.architecture.max_positions 12",
        r"data.seq_len is 16, expected at most teacher.architecture.max_positions, 12",
    ),
    ("--budget.flops 1e3", r"budget.flops is 1000, expected at least the price of one step"),
    (
        "--arms {a:{preset:scratch,student:{vocab_size:99}}}",
        r"arms.a.student.vocab_size is 99, expected .*, 53",
    ),
    (
        "--arms {a:{preset:scratch,student:{withd:99}}}",
        r"arms.a.student: unknown setting 'withd' .did you mean 'width'",
    ),
    (
        "--arms {a:{preset:scratch,optimizer:{learning_rate:fast}}}",
        r"arms.a.optimizer.learning_rate is 'fast', expected",
    ),
    (
        "--arms {a:{preset:scratch,finetune:{clip:-1}}}",
        r"arms.a.finetune: evaluation.finetune.clip is -1",
    ),
    (
        "--arms {a:{preset:scratch,start:{source:teacher,layers:[9]}}}",
        r"arms.a: start.layers: teacher layer 9, expected",
    ),
    ("--arms {scrach:{}}", r"unknown arm 'scrach' \(did you mean 'scratch'\?\)"),
    ("--arms.scratch.preset lojit", r"unknown arm 'lojit' \(did you mean 'logit'\?\)"),
    (
        "--arms {a:{terms:[{name:attention_mse,options:{layers:[[1,9]]}}]}}",
        r"arms.a: attention_mse: .*9",
    ),
    (
        "--arms {a:{terms:[{name:relation,options:{relation_heads:7}}]}}",
        r"arms.a: relation: relation_heads is 7",
    ),
    (
        "--arms {scratch:{}} --train.batch_size 512 --budget.flops 1e12",
        r"cannot fill a batch of 512",
    ),
    ("--data.files no/such/*.txt", r"no/such/\*.txt.*"),
    ("--teacher.source no/such/place", r"no/such/place.*"),
    ("--evaluation.tasks.halves.label colour", r"has no 'colour'"),
    (
        "--teacher.head.budget 10",
        r"teacher.head.budget is 10, expected at least the price of one step",
    ),
]


@pytest.mark.parametrize(("words", "message"), SETTINGS, ids=[words for words, _ in SETTINGS])
def test_impossible_setting_is_refused_and_no_run_made(
    recipe: Path, tmp_path: Path, words: str, message: str
) -> None:
    overrides = [
        re.sub(r"([:,])(?=\S)", r"\1 ", word) if word.startswith("{") else word
        for word in words.split()
    ]
    refused(message, "compare", recipe, "--out", tmp_path / "out", *overrides)
    assert not (tmp_path / "out" / "study.json").exists()
    assert not list((tmp_path / "out").glob("runs/*"))


def test_rows_that_stand_in_the_text_are_refused_before_a_step(
    recipe: Path, tmp_path: Path
) -> None:
    documents = (recipe.parent / "text.jsonl").read_text().splitlines()
    rows = [
        json.dumps({"text": json.loads(document)["text"], "label": "ab"[number % 2]})
        for number, document in enumerate(documents)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    out = tmp_path / "out"
    task = f"{{copied: {{file: {tmp_path / 'rows.jsonl'}}}}}"
    words = [*ALONE[:-1], task, "--evaluation.contamination.check", "refuse"]
    message = r"of copied \(\d+\.\d%\) stand in the pretraining text, first .*rows\.jsonl"
    refused(message, "compare", recipe, "--out", out, *words)
    assert not out.exists()


TEXTS = [
    ("text.txt", b"", r"text.txt"),
    ("text.txt", b"good words\n\n\xff\xfe\n", r"text.txt.*UTF-8"),
    ("text.jsonl", b'{"text": "a"\n', r"text.jsonl, line 1"),
    ("text.jsonl", b'{"title": "a"}\n', r"text.jsonl, line 1.*text"),
]


@pytest.mark.parametrize(("name", "content", "message"), TEXTS)
def test_unreadable_text_is_refused_with_its_line(
    recipe: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(message, "compare", recipe, "--out", tmp_path / "out", "--data.files", path)


TEACHERS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no weights", lambda d: (d / "model.safetensors").unlink(), r"model.safetensors"),
    ("truncated weights", lambda d: halve(d / "model.safetensors"), r"model.safetensors"),
    ("no config", lambda d: (d / "config.json").unlink(), r"config.json"),
    ("no tokenizer", lambda d: (d / "tokenizer.json").unlink(), r"tokenizer.json"),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in TEACHERS], ids=[case[0] for case in TEACHERS]
)
def test_teacher_with_missing_or_damaged_file_is_refused(
    recipe: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    source = teacher(recipe, tmp_path / "teacher", change)
    refused(message, "compare", recipe, "--out", tmp_path / "out", "--teacher.source", source)


def test_tokenizer_unlike_the_teachers_is_refused_with_the_entry(
    recipe: Path, tmp_path: Path
) -> None:
    other = tmp_path / "tokenizer.json"
    shutil.copy(recipe.parent / "encoder" / "tokenizer.json", other)
    rename_token(other)
    refused(
        r"entry \d+ is 'zzz', expected",
        "compare",
        recipe,
        "--out",
        tmp_path / "out",
        "--data.tokenizer",
        other,
    )


def test_malformed_command_line_is_refused(recipe: Path, tmp_path: Path) -> None:
    refused(r"invalid choice: 'compere'", "compere", recipe)
    refused(r"required: --out", "compare", recipe)
    refused(r"none.yaml", "price", tmp_path / "none.yaml")
    refused(r"not a readable YAML", "price", written(tmp_path / "bad.yaml", "a: b: c"))
    refused(r"has no value", "price", recipe, "--data.seq_len")
    refused(
        r"--student.size changes a recipe, expected RECIPE before it",
        "arms",
        "--student.size",
        "6x384",
    )
    version = kdjax("--version")
    assert (version.status, version.out.split()) == (0, ["kdjax", metadata.version("kdjax")])
    refused(
        r"--arm is 'x'", "train", recipe, "--out", tmp_path / "out", "--arm", "x", "--seed", "0"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "RECIPE is empty, expected the path of a recipe"),
        ("/dev/null", "/dev/null: not a file"),
    ],
)
def test_recipe_that_is_no_file_is_refused(path: str, message: str) -> None:
    refused(message, "price", path)


def test_refused_sweep_leaves_its_directory_to_the_corrected_one(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [recipe, "--out", out, "--sweep", '{"budget.flops": [1e7]}']
    refused("no file matches", "sweep", *words, "--data.files", str(tmp_path / "nowhere.txt"))
    assert not out.exists() or list(out.iterdir()) == []


def test_corrected_recipe_runs_in_the_directory_of_a_refused_one(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused(r"no/such", "compare", recipe, "--out", out, "--data.files", "no/such/*.txt")
    refused(
        r"cannot fill a batch",
        "compare",
        recipe,
        "--out",
        out,
        *ALONE,
        "--train.batch_size",
        "512",
        "--budget.flops",
        "1e12",
    )
    # Neither mistake has taken the directory.
    ended = kdjax("compare", recipe, "--out", out, *ALONE)
    assert ended.status == 0, ended.err


def test_taken_or_unwritable_directory_is_refused(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words: list[str | Path] = [recipe, "--out", out, *ALONE]
    assert kdjax("compare", *words).status == 0
    before = (out / "results.json").read_bytes()
    refused(
        r"study.json: this study's train.optimizer.b1 is 0.9",
        "compare",
        *words,
        "--train.optimizer.b1",
        "0.8",
    )
    assert (out / "results.json").read_bytes() == before

    # A damaged corpus.
    shard = next((out / "data").rglob("train-*.array_record"))
    halve(shard)
    refused(
        rf"{shard.name}",
        "compare",
        *words,
        "--data.prepared",
        out / "data",
        "--out",
        tmp_path / "other",
    )

    # A directory of something else.
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    written(occupied / "thesis.txt", "mine")
    refused(r"holds files but no study", "compare", *words, "--out", occupied)
    assert [path.name for path in occupied.iterdir()] == ["thesis.txt"]

    # No directory at all.
    file = written(tmp_path / "file", "mine")
    refused(r"file.*cannot be", "compare", *words, "--out", file)
    assert file.read_text() == "mine"


def test_truncated_checkpoint_is_refused(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [recipe, "--out", tmp_path / "out", *ALONE, "--train.checkpoint.seconds", "0"]

    def watch(reporter: object, name: str) -> Callable[[Progress], None]:
        def interrupt(progress: Progress) -> None:
            if progress.ledger.steps == 3:
                raise KeyboardInterrupt

        return interrupt

    with monkeypatch.context() as patched:
        patched.setattr(compare.Reporter, "track", watch)
        assert kdjax("compare", *words).status == 130
    # All checkpoints are cut in half.
    checkpoints = tmp_path / "out" / "runs" / "scratch-seed0" / "checkpoints"
    for path in checkpoints.glob("*/state/**/*"):
        if path.is_file():
            halve(path)
    refused("checkpoints: expected a whole checkpoint, found damaged ones alone", "compare", *words)


def test_teacher_of_another_shape_is_refused_before_a_price_is_counted(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyPlan, "prices", lambda *_: pytest.fail("a price was counted"))
    words = ("compare", recipe, "--out", tmp_path / "out", "--teacher.architecture.ffn", "72")
    refused(r"the model's ffn is \d+, expected teacher\.architecture's 72", *words)
    assert not (tmp_path / "out").exists()


def test_budget_below_a_step_of_the_first_arm_is_refused_before_the_next_price(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    prices = StudyPlan.prices

    def count(plan: StudyPlan, arm: Arm) -> tuple[Price, ...]:
        counted.append(arm.name)
        return prices(plan, arm)

    monkeypatch.setattr(StudyPlan, "prices", count)
    refused(r"budget", "compare", recipe, "--out", tmp_path / "out", "--budget.flops", "10")
    assert counted == ["scratch"]


def test_missing_text_and_a_held_directory_are_refused_before_jax_is_loaded(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_set_up", lambda *_: pytest.fail("JAX was set up"))
    compare = ("compare", recipe, "--out", tmp_path / "out")
    refused(r"none\.txt: no file matches", *compare, "--data.files", tmp_path / "none.txt")

    def held(directory: Path) -> None:
        raise InUse(f"{directory}: process 1 has been writing here, expected it to end first")

    monkeypatch.setattr(locks, "check_free", held)
    for command in ("compare", "sweep", "tune"):
        refused("expected it to end first", command, recipe, "--out", tmp_path / "out")
