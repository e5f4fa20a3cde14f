"""A teacher's checkpoints and the records of fine-tuning in a place that outlives the machine, and
back from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.study.runs.run_backup import RunBackup

CARD = "teacher.json"
FILES = {"config.json": "{}", "model.safetensors": "weights", CARD: "{}"}


def write(folder: Path, names: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in names.items():
        (folder / name).write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_uploaded_folder_is_downloaded_on_another_machine(tmp_path: Path) -> None:
    place = tmp_path / "place"
    first = tmp_path / "first" / "seed0"
    second = tmp_path / "second" / "seed0"
    write(first / "at-0.5", FILES)
    RunBackup(str(place), first, "teacher").upload_folder("at-0.5", CARD)
    assert read(place / "teacher" / "seed0" / "at-0.5") == FILES
    RunBackup(str(place), second, "teacher").download_folder("at-0.5", CARD)
    assert read(second / "at-0.5") == FILES


def test_folder_without_its_last_file_is_not_downloaded(tmp_path: Path) -> None:
    place = tmp_path / "place"
    run = tmp_path / "out" / "seed0"
    half = {name: text for name, text in FILES.items() if name != CARD}
    write(place / "teacher" / "seed0" / "at-0.5", half)
    RunBackup(str(place), run, "teacher").download_folder("at-0.5", CARD)
    assert not (run / "at-0.5").exists()


def test_backup_without_a_root_copies_nothing(tmp_path: Path) -> None:
    run = tmp_path / "out" / "seed0"
    write(run / "at-0.5", FILES)
    backup = RunBackup("", run, "teacher")
    backup.upload_folder("at-0.5", CARD)
    backup.download_folder("at-1", CARD)
    assert read(run / "at-0.5") == FILES
    assert not (run / "at-1").exists()


def records(run: Path, names: dict[str, str]) -> None:
    """Write records of fine-tuning: path below `finetuning/` -> content."""
    for name, text in names.items():
        path = run / "finetuning" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def stored(folder: Path) -> dict[str, str]:
    """Return the files anywhere below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_records_go_on_on_another_machine_without_unfinished_states(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    finished = {"fixed/sst2/lr1-seed0.json": "1", "grid/rte/lr1-seed0.json": "2"}
    first = tmp_path / "first" / "scratch-seed0"
    # Finished trials lie two folders down, the encoder that others start from one.
    not_copied = {
        "grid/rte/lr2-seed0.step9.safetensors": "under way",
        "intermediate/mnli.encoder.step40.safetensors": "an encoder",
    }
    records(first, {**finished, **not_copied})
    RunBackup(place, first).upload_records("finetuning")
    second = tmp_path / "second" / "scratch-seed0"
    RunBackup(place, second).download_records("finetuning")
    assert stored(second / "finetuning") == finished


def test_records_that_are_there_already_stay(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    run = tmp_path / "out" / "scratch-seed0"
    backup = RunBackup(place, run)
    records(run, {"fixed/sst2/a.json": "old"})
    backup.upload_records("finetuning")
    records(run, {"fixed/sst2/a.json": "new", "fixed/rte/b.json": "b"})
    backup.upload_records("finetuning")
    kept = stored(tmp_path / "place" / "runs" / "scratch-seed0" / "finetuning")
    assert kept == {"fixed/rte/b.json": "b", "fixed/sst2/a.json": "old"}
    backup.download_records("finetuning")
    assert stored(run / "finetuning")["fixed/sst2/a.json"] == "new"


def test_backup_of_a_run_without_records_makes_no_directory(tmp_path: Path) -> None:
    run = tmp_path / "out" / "scratch-seed0"
    backup = RunBackup(str(tmp_path / "place"), run)
    backup.upload_records("finetuning")
    backup.download_records("finetuning")
    assert not run.exists()
    assert not (tmp_path / "place").exists()


def test_records_without_a_backup_stay_where_they_are(tmp_path: Path) -> None:
    run = tmp_path / "out" / "scratch-seed0"
    records(run, {"fixed/sst2/a.json": "a"})
    RunBackup("", run).upload_records("finetuning")
    assert stored(tmp_path) == {"out/scratch-seed0/finetuning/fixed/sst2/a.json": "a"}


def test_backup_that_cannot_take_records_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("a file")
    run = tmp_path / "out" / "scratch-seed0"
    records(run, {"fixed/sst2/a.json": "a"})
    with pytest.raises(InputError, match=r"train\.checkpoint\.directory: .* cannot be used") as e:
        RunBackup(str(tmp_path / "place"), run).upload_records("finetuning")
    assert "\n" not in str(e.value)
