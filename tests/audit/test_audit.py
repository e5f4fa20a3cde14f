"""An audit finds nothing in a study as it was made, and names whatever was changed in it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.audit import costs, recorded
from kdjax.audit.audit import audit, audit_command
from kdjax.audit.counts import Counts
from kdjax.audit.findings import AuditFindings
from kdjax.budget.journal import Journal
from kdjax.config import Config, to_dict
from kdjax.data.corpus import Corpus
from kdjax.data.mask_rate import MaskRate
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.study.compare import compare
from kdjax.sweep.cells import cells_of
from kdjax.sweep.sweep import sweep
from kdjax.training.checkpoints.storage import CheckpointStorage
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

SCRATCH = "runs/scratch-seed0"
KD = "runs/kd-seed0"
SNAPSHOT = f"{SCRATCH}/snapshots/chck_300"
STAGES = [
    {"terms": [{"name": "mlm"}], "until": 0.5},
    {"terms": [{"name": "mlm"}, {"name": "logit"}]},
]
CHANGES: dict[str, Any] = {
    "arms": {"kd": {"phases": STAGES, "teacher": "cached"}, "scratch": {}},
    "cache": {"k": 8, "shared_by": 40},
    "budget": {"flops": 4.0e7, "teacher": "both", "students": 4},
    "train": {
        "batch_size": 8,
        "log": {"every": 1},
        "evaluations": 1,
        "checkpoint": {"keep_at_words": [150, 300]},
    },
    "evaluation": {"mlm_sequences": 16, "protocols": ["probe"]},
}
OVERRIDES = ["--data.mask_copies", "2", "--teacher.training_flops", "4e6"]
KILLED = 3
"""The step of the first run whose checkpoint a kill interrupts."""
Place = str
"""Part of what a difference is said to be in: a file, or a figure in it."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study of two arms, two phases, stored outputs, a fitted head and a probed task.

    It was killed once, while it wrote a checkpoint.
    """
    directory = tmp_path_factory.mktemp("audit")
    task = small_study.make_task(directory / "halves.csv", "halves")
    tasks = {"halves": {"file": str(task), "dev": 0.2, "test": 0.2}}
    evaluation = {**CHANGES["evaluation"], "tasks": tasks}
    recipe = small_study.write(directory, **{**CHANGES, "evaluation": evaluation})
    saves = []

    def killed(self: CheckpointStorage, *checkpoint: Any) -> None:
        saves.append(checkpoint)
        if len(saves) == KILLED + 1:  # the first save is of the teacher's head
            raise KeyboardInterrupt
        save(self, *checkpoint)

    save = CheckpointStorage.save
    # The first call is killed in the middle of a save, and the second one goes on from there.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CheckpointStorage, "save", killed)
        every_step = [*OVERRIDES, "--train.checkpoint.seconds", "0"]
        compare(recipes.load(recipe, every_step), directory / "out")
    compare(recipes.load(recipe, OVERRIDES), directory / "out")
    return directory / "out"


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Make recipes and arms ready and count the same text once: most of what an audit of so small a
    study takes."""

    def once(make: Callable[[Any], Any], key: Callable[[Any], Any]) -> Callable[[Any], Any]:
        results: dict[str, Any] = {}

        def cached(value: Any) -> Any:
            name = json.dumps(key(value))
            if name not in results:
                results[name] = make(value)
            return results[name]

        return cached

    counts: dict[str, Counts | None] = {}
    count = AuditFindings.counts

    def counted(
        self: AuditFindings,
        config: Config,
        corpus: Corpus | None,
        seed: int,
        mask_rate: MaskRate | None = None,
    ) -> Counts | None:
        # The text is opened only where its bytes are those of the digest, wherever it lies.
        text = None if corpus is None else corpus.digest
        name = json.dumps([text, to_dict(config.data), seed, repr(mask_rate)])
        if name not in counts:
            counts[name] = count(self, config, corpus, seed, mask_rate)
        return counts[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditFindings, "counts", counted)
        for module in (recorded, costs):
            patch.setattr(module, "from_dict", once(recipes.from_dict, dict))
            patch.setattr(module, "arms_of", once(arms_of, to_dict))
        yield


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "copy"))


def edit(path: Path, *keys: str | int, to: Any) -> None:
    """Change a value in a JSON file: to `to`, or to what `to` makes of it."""
    values = json.loads(path.read_text())
    # The last key is the one that is changed; those before it lead there.
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    if callable(to):
        to = to(inner[keys[-1]])
    inner[keys[-1]] = to
    path.write_text(json.dumps(values))


def one_more(value: Any) -> Any:
    return value + 1


def entries(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def write_journal(run: Path, journal: list[dict[str, Any]]) -> None:
    """Write entries as a run's journal, as they are."""
    (run / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in journal))


def forge_journal(run: Path, journal: list[dict[str, Any]]) -> None:
    """Write entries as a run's journal, with numbers and hashes that fit."""
    # Each entry holds the hash of the one before, so all that follow are made anew.
    previous = ""
    for number, entry in enumerate(journal):
        entry.pop("sha256")
        entry |= {"entry": number, "previous": previous}
        previous = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
        entry["sha256"] = previous
    write_journal(run, journal)


def forge(run: Path, *keys: str) -> None:
    """Add 1 to a figure of the second entry's ledger, and make every hash anew."""
    journal = entries(run)
    figures = journal[1]["ledger"]
    # The figure may lie deep in the ledger.
    for key in keys[:-1]:
        figures = figures[key]
    figures[keys[-1]] += 1
    forge_journal(run, journal)


def agree(out: Path, run: Path) -> None:
    """Give result.json and results.json the hash that the journal ends on now."""
    head = entries(run)[-1]["sha256"]
    edit(run / "result.json", "ledger_sha256", to=head)
    rows = json.loads((out / "results.json").read_text())["runs"]
    number = [f"{row['arm']}-seed{row['seed']}" for row in rows].index(run.name)
    edit(out / "results.json", "runs", number, "ledger_sha256", to=head)


def close_early(run: Path) -> None:
    """Say of a journal's third entry that it closes the run, without hashes that fit."""
    journal = entries(run)
    journal[2]["event"] = "close"
    write_journal(run, journal)


def without_third(run: Path) -> list[dict[str, Any]]:
    """Return a journal's entries but for the third."""
    return entries(run)[:2] + entries(run)[3:]


def flip(path: Path) -> None:
    """Change a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def places_of_differences(out: Path) -> list[str]:
    """Return the file, and the figure in it, of each difference."""
    return [difference.where.removeprefix(f"{out}/") for difference in audit(out)]


def test_study_as_it_was_made_has_no_difference(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The journal of the run that was killed has the restart in it.
    for run in (study / "runs").iterdir():
        expected = ["open", "steps", "close"]
        if run.name == "kd-seed0":
            expected = ["open", *["steps"] * KILLED, "restart", "steps", "close"]
        assert [entry["event"] for entry in entries(run)] == expected
    assert audit(study) == []
    capsys.readouterr()
    # The command says what it worked out, and nothing else; how far it is goes another way.
    with Reporter() as reporter:
        audit_command(study, reporter)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "auditing files, text and teacher",
        "counting what a step of each arm costs",
        "recounting the runs",
        "adding up the scores",
        "judging again",
    ]
    assert printed.out.strip() == (
        f"{study}: worked out again: prices 4, runs 4, ledger entries {KILLED + 4 + 3 * 3}, "
        "verdicts 2; tokens counted"
    )


def test_audit_of_a_study_leaves_its_files_untouched(study: Path) -> None:
    def stamps() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in study.rglob("*")}

    before = stamps()
    audit(study)
    assert stamps() == before


FIGURES: dict[str, tuple[Callable[[Path], object], Place]] = {
    "a run's FLOPs": (
        lambda out: edit(out / SCRATCH / "result.json", "spent", "student_forward", to=one_more),
        f"{SCRATCH}/result.json: spent.student_forward",
    ),
    "a run's steps in a phase": (
        lambda out: edit(out / KD / "result.json", "phases", 1, "steps", to=one_more),
        f"{KD}/result.json: phases.1.steps",
    ),
    "a run's time": (
        lambda out: edit(out / KD / "result.json", "wall_clock", "compute", to=one_more),
        f"{KD}/result.json: wall_clock.compute",
    ),
    "a run's utilisation": (
        lambda out: edit(out / KD / "result.json", "hardware", "model_utilisation", to=0.4),
        f"{KD}/result.json: hardware.model_utilisation",
    ),
    "a run's loss": (
        lambda out: edit(out / SCRATCH / "result.json", "metrics", "mlm_loss", to=1.0),
        "results.json: runs.1.metrics.mlm_loss",
    ),
    "a probe's score": (
        lambda out: edit(out / SCRATCH / "result.json", "metrics", "probe.halves", to=0.95),
        f"{SCRATCH}/result.json: metrics.probe.halves",
    ),
    "a probe's score of a reference": (
        lambda out: edit(
            next(out.glob("references/untrained*/result.json")), "metrics", "probe.halves", to=0.95
        ),
        "references/untrained-",
    ),
    "the layer that a probe chose": (
        lambda out: edit(
            out / SCRATCH / "result.json", "details", "probe.halves", "layer", to=lambda n: 1 - n
        ),
        f"{SCRATCH}/result.json: details.probe.halves.layer",
    ),
    "words of a run": (
        lambda out: edit(out / SCRATCH / "result.json", "words_seen", to=7),
        f"{SCRATCH}/result.json: words_seen",
    ),
    "the words of a snapshot": (
        lambda out: edit(out / SNAPSHOT / "snapshot.json", "words_seen", to=one_more),
        f"{SNAPSHOT}/snapshot.json: words_seen",
    ),
    "the step of a snapshot": (
        lambda out: edit(out / SNAPSHOT / "snapshot.json", "steps", to=one_more),
        f"{SNAPSHOT}/snapshot.json: words",
    ),
    "the FLOPs of a snapshot": (
        lambda out: edit(out / SNAPSHOT / "snapshot.json", "spent", "optimizer", to=one_more),
        f"{SNAPSHOT}/snapshot.json: spent.optimizer",
    ),
    "a snapshot's parameters": (
        lambda out: shutil.copy(
            out / SCRATCH / "params.safetensors", out / SNAPSHOT / "params.safetensors"
        ),
        f"{SNAPSHOT}/snapshot.json: params_sha256",
    ),
    "rows that stand in the text": (
        lambda out: edit(
            next(out.glob("data/contamination-*.json")), "overlaps", 0, "found", to=one_more
        ),
        "results.json: contamination.overlaps.0.found",
    ),
    "a run's curve": (
        lambda out: edit(out / SCRATCH / "result.json", "curve", 0, "mlm_loss", to=1.0),
        f"{SCRATCH}/result.json: curve.0.mlm_loss",
    ),
    "the FLOPs of a line of metrics": (
        lambda out: (out / SCRATCH / "metrics.jsonl").write_text(
            (out / SCRATCH / "metrics.jsonl").read_text().replace('"flops": ', '"flops": 1', 1)
        ),
        f"{SCRATCH}/metrics.jsonl: step 1: flops",
    ),
    "a row of the results": (
        lambda out: edit(out / "results.json", "runs", 2, "epochs", to=9.5),
        "results.json: runs.2.epochs",
    ),
    "a verdict": (
        lambda out: edit(out / "results.json", "verdicts", 0, "verdict", to="BEATS"),
        "results.json: verdicts.0.verdict",
    ),
    "which way is better": (
        lambda out: edit(out / "results.json", "endpoints", 0, "better", to="higher"),
        "results.json: endpoints.0.better",
    ),
    "a cost in a case": (
        lambda out: edit(out / "results.json", "cases", 3, "costs", "kd", to=one_more),
        "results.json: cases.3.costs.kd",
    ),
    "how much text there was": (
        lambda out: edit(out / "results.json", "corpus", "tokens", "train", to=one_more),
        "results.json: corpus.tokens.train",
    ),
    "a reference": (
        lambda out: edit(out / "results.json", "references", 0, "details", to={"layer": 9}),
        "results.json: references.0",
    ),
    "the recipe in the results": (
        lambda out: edit(out / "results.json", "config", "budget", "flops", to=8e7),
        "results.json: config.budget.flops",
    ),
    "the budget in study.json": (
        lambda out: edit(out / "study.json", "config", "budget", "flops", to=8e7),
        "study.json: config.budget.flops",
    ),
    "the budget of a run": (
        lambda out: edit(out / KD / "result.json", "budget", "amount", to=8 * 10**7),
        f"{KD}/result.json: budget.amount",
    ),
    "a price": (
        lambda out: edit(
            out / "study.json", "costs", "kd", "prices", 1, "teacher_forward", to=one_more
        ),
        "study.json: costs.kd.prices.1.teacher_forward",
    ),
    "a price in a run's manifest": (
        lambda out: edit(out / KD / "manifest.json", "cost", "prices", 0, "total", to=one_more),
        f"{KD}/manifest.json: cost.prices.0.total",
    ),
    "the share of stored outputs": (
        lambda out: edit(out / "study.json", "costs", "kd", "upfront", "teacher_cache", to=0),
        "study.json: costs.kd.upfront.teacher_cache",
    ),
    "the share of the teacher's training": (
        lambda out: edit(out / "study.json", "costs", "kd", "upfront", "teacher_training", to=0),
        "study.json: costs.kd.upfront.teacher_training",
    ),
    "what fitting the head cost": (
        lambda out: edit(out / "teacher/teacher.json", "head_flops", to=one_more),
        "teacher/teacher.json: head_flops",
    ),
    "what storing outputs cost": (
        lambda out: edit(out / "cache/manifest.json", "totals", "flops", to=one_more),
        "cache",
    ),
    "an entry of the ledger": (
        lambda out: close_early(out / KD),
        f"{KD}/ledger.jsonl",
    ),
    "an entry less": (
        lambda out: write_journal(out / KD, without_third(out / KD)),
        f"{KD}/ledger.jsonl",
    ),
    "an entry less and all hashes anew": (
        lambda out: forge_journal(out / KD, without_third(out / KD)),
        f"{KD}/result.json: ledger_sha256",
    ),
    "a bit of the parameters": (
        lambda out: flip(out / SCRATCH / "params.safetensors"),
        f"{SCRATCH}/params.safetensors: SHA-256",
    ),
    "another run's parameters": (
        lambda out: shutil.copy(
            out / KD / "params.safetensors", out / SCRATCH / "params.safetensors"
        ),
        f"{SCRATCH}/params.safetensors: SHA-256",
    ),
    "a bit of the text": (lambda out: flip(next((out / "data").rglob("*train*"))), "data/"),
    "a bit of the stored outputs": (
        lambda out: flip(next((out / "cache").rglob("*.array_record"))),
        "cache/",
    ),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_changed_figure_is_named(copy: Path, figure: str) -> None:
    change, expected = FIGURES[figure]
    change(copy)
    assert any(place.startswith(expected) for place in places_of_differences(copy)), audit(copy)


@pytest.mark.parametrize(
    "figure",
    [
        ("spent", "optimizer"),
        ("spent", "teacher_cache"),
        ("positions",),
        ("masked_tokens",),
        ("tokens",),
    ],
)
def test_ledger_forged_with_all_its_hashes_is_caught_by_prices_and_text(
    copy: Path, figure: tuple[str, ...]
) -> None:
    # Hashes and results agree with the forged entry; prices and text do not.
    forge(copy / KD, *figure)
    agree(copy, copy / KD)
    assert f"{KD}/ledger.jsonl: entry 1: ledger.{'.'.join(figure)}" in places_of_differences(copy)


def test_ledger_whose_time_goes_back_is_caught(copy: Path) -> None:
    journal = entries(copy / KD)
    journal[KILLED]["ledger"]["seconds"]["compute"] = 0.0
    forge_journal(copy / KD, journal)
    agree(copy, copy / KD)
    assert places_of_differences(copy) == [f"{KD}/ledger.jsonl: entry {KILLED}"]


def test_restart_from_an_unknown_account_is_caught(copy: Path) -> None:
    journal = entries(copy / KD)
    # The entry behind the kill is the restart.
    assert journal[KILLED + 1]["event"] == "restart"
    journal[KILLED + 1]["ledger"]["seconds"] = {}
    forge_journal(copy / KD, journal)
    agree(copy, copy / KD)
    assert places_of_differences(copy) == [f"{KD}/ledger.jsonl: entry {KILLED + 1}"]


def test_budget_raised_in_every_file_shows_in_the_steps(copy: Path) -> None:
    for path in [*copy.glob("*.json"), *copy.glob("runs/*/*.json*")]:
        raised = (
            path.read_text()
            .replace("40000000.0", "80000000.0")
            .replace('"amount": 40000000', '"amount": 80000000')
        )
        path.write_text(raised)
    # Journals are hashed anew, so that they fit the raised budget.
    for run in (copy / "runs").iterdir():
        forge_journal(run, entries(run))
        agree(copy, run)
    config = json.loads((copy / "results.json").read_text())["config"]
    edit(
        copy / "results.json",
        "config_digest",
        to=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    )

    # Nothing contradicts the raised budget but the steps, which it would have bought more of.
    places = places_of_differences(copy)
    for run_name in (SCRATCH, KD):
        last = len(entries(copy / run_name)) - 1
        phases = f"{run_name}/ledger.jsonl: entry {last}: ledger.phases at the end"
        assert any(place.startswith(phases) for place in places)
    assert not any(place.startswith("study.json") for place in places)


def test_tokens_changed_in_every_file_are_caught_by_the_text(copy: Path) -> None:
    journal = entries(copy / SCRATCH)
    # Every account is lowered alike, in all files that name it.
    for entry in journal[1:]:
        entry["ledger"]["unique_tokens"] -= 5
    forge_journal(copy / SCRATCH, journal)
    edit(copy / SCRATCH / "result.json", "tokens_unique", to=lambda tokens: tokens - 5)
    edit(copy / "results.json", "runs", 1, "tokens_unique", to=lambda tokens: tokens - 5)
    agree(copy, copy / SCRATCH)
    last = len(journal) - 1
    assert f"{SCRATCH}/ledger.jsonl: entry {last}: ledger.unique_tokens" in places_of_differences(
        copy
    )
    assert f"{SCRATCH}/result.json: tokens_unique" in places_of_differences(copy)


FILES = (
    "study.json",
    "results.json",
    "teacher/teacher.json",
    "data/manifest.json",
    "cache/manifest.json",
    f"{KD}/manifest.json",
    f"{KD}/result.json",
    f"{KD}/ledger.jsonl",
    f"{KD}/metrics.jsonl",
    f"{KD}/params.safetensors",
)


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_gone_or_mangled_is_named(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    # What belongs to text or cache is named by its directory.
    expected = name
    if name in ("data/manifest.json", "cache/manifest.json"):
        expected = name.removesuffix("/manifest.json")
    for mangled in (content[: len(content) // 2], b"[3]\n"):
        # Half a file, and one of another kind.
        (copy / name).write_bytes(mangled)
        assert any(place.startswith(expected) for place in places_of_differences(copy)), mangled
    # And none at all.
    (copy / name).unlink()
    assert any(place.startswith(expected) for place in places_of_differences(copy))


@pytest.mark.parametrize(
    ("name", "keys", "value", "said"),
    [
        ("study.json", ["costs"], 3, "costs is 3"),
        ("teacher/teacher.json", ["mlm_loss"], "low", "mlm_loss is 'low'"),
        ("references/teacher/result.json", ["metrics"], [], "metrics is []"),
        (f"{KD}/result.json", ["spent"], {}, "spent.student_forward is missing"),
        (f"{KD}/result.json", ["hardware"], None, "hardware is None"),
        (f"{KD}/manifest.json", ["budget"], "all", "budget is 'all'"),
        ("wall_clock.json", ["compile"], float("nan"), "compile is nan"),
    ],
)
def test_field_of_another_kind_is_named(
    copy: Path, name: str, keys: list[str], value: Any, said: str
) -> None:
    edit(copy / name, *keys, to=lambda _: value)
    findings = [found for found in audit(copy) if found.where == str(copy / name)]
    assert any(said in found.found for found in findings), findings
    # No error of Python's own stands for what is wrong.
    assert not [found for found in findings if "Error: " in found.found]


def test_damaged_ngram_losses_are_named(copy: Path) -> None:
    (path,) = (copy / "data").glob("reference-losses-*.json")
    edit(path, "unigram", to=lambda _: float("nan"))
    assert [found.found for found in audit(copy) if found.where == str(path)] == ["unigram is nan"]


def test_run_that_is_gone_is_named_once(copy: Path) -> None:
    shutil.rmtree(copy / KD)
    assert KD in places_of_differences(copy)
    # A run's files are not named one by one.
    assert not [place for place in places_of_differences(copy) if place.startswith(f"{KD}/")]


def test_audit_without_text_teacher_and_cache_works_out_all_but_tokens(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for artifact in ("data", "teacher", "cache"):
        shutil.rmtree(copy / artifact)
    audit_command(copy)
    assert (
        f"tokens not counted, there is no whole text in {copy / 'data'}" in capsys.readouterr().out
    )
    # Prices need no text: a forged account is still found.
    forge(copy / KD, "spent", "optimizer")
    assert f"{KD}/ledger.jsonl: entry 1: ledger.spent.optimizer" in places_of_differences(copy)


def test_prices_of_another_jax_are_compared_with_this_one_s_and_both_are_named(copy: Path) -> None:
    edit(copy / "results.json", "jax", to="0.0.1")
    # Another version alone is no difference, as prices are the same here.
    assert audit(copy) == []
    edit(copy / "study.json", "costs", "scratch", "prices", 0, "total", to=one_more)
    (first, *_) = audit(copy)
    assert first.where == f"{copy}/study.json: costs.scratch.prices.0.total"
    # The recorded price is told with the version it was made under.
    assert "recorded under 0.0.1" in first.expected
    assert int(first.found) == int(first.expected.split()[0]) + 1


def test_command_prints_every_difference_and_ends_as_bad_input(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copy / "results.json", "verdicts", 0, "n", to=7)
    edit(copy / "results.json", "runs", 0, "steps", to=5)
    with pytest.raises(InputError, match=r"found \d+ difference\(s\), expected none"):
        audit_command(copy)
    # All differences are printed, one a line.
    lines = capsys.readouterr().out.splitlines()
    assert f"{copy}/results.json: verdicts.0.n: found 7, expected 2" in lines
    assert [line for line in lines if ": found " in line] == [
        str(difference) for difference in audit(copy)
    ]


@pytest.mark.usefixtures("study")  # it has compiled the programs
def test_sweep_is_audited_study_by_study_and_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    tokens = [3 * 128, 40 * 128]
    recipe = small_study.write(
        tmp_path, **{**CHANGES, "arms": {"scratch": {}}, "seeds": [0], "budget": {}}
    )
    limited = ["--data.regime", "limited", "--data.unique_tokens", "2000"]
    config = replace(recipes.load(recipe, limited), sweep={"budget.tokens": tokens})
    cells = cells_of(config)
    assert len(cells) == 2
    few = cells[0].name
    many = cells[1].name
    # Few steps, and so many that the text repeats.
    sweep(config, out)
    capsys.readouterr()
    audit_command(out)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *(f"{out}/cells/{name}" for name in sorted((few, many))),
        str(out),
    ]
    ran = json.loads((out / "cells" / many / "results.json").read_text())["runs"][0]
    assert ran["steps"] == 40
    assert ran["tokens_unique"] <= 2000 < ran["tokens_seen"]  # so that repeats are counted

    # A change in one study shows there and in the sweep's own table.
    edit(out / "cells" / few / "results.json", "runs", 0, "steps", to=one_more)
    places = places_of_differences(out)
    assert f"cells/{few}/results.json: runs.0.steps" in places
    assert "sweep.json: rows.0.steps" in places
    assert any(place.startswith("sweep.json: cells.0.results_digest") for place in places)


@pytest.mark.usefixtures("study")
def test_budget_of_hours_is_audited(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = tmp_path / "out" / SCRATCH
    changes = {"arms": {"scratch": {}}, "seeds": [0], "budget": {"hours": 1e-4}}
    compare(recipes.load(small_study.write(tmp_path, **{**CHANGES, **changes})), out)
    # As it was made, it has no difference.
    assert audit(out) == []
    edit(run / "result.json", "used", to=lambda hours: hours / 2)
    # The clock is moved on in the journal, and the result says less than was used.
    journal = entries(run)
    for entry in journal[1:]:
        entry["ledger"]["seconds"]["compute"] += 1.0
    forge_journal(run, journal)
    places = places_of_differences(out)
    assert f"{SCRATCH}/result.json: used" in places
    assert f"{SCRATCH}/ledger.jsonl" in places


def test_directory_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        audit(tmp_path)


def test_journal_written_by_these_tests_is_read_as_the_program_s_own(
    study: Path, tmp_path: Path
) -> None:
    # The tests' own hashing must be the journal's, or forged entries would be found for another
    # reason.
    forge_journal(tmp_path, entries(study / KD))
    assert entries(tmp_path) == Journal(study / KD / "ledger.jsonl").entries
