"""A teacher's checkpoints in a place that outlives the machine, and back from there."""

from __future__ import annotations

from pathlib import Path

from kdjax.study.run_backup import RunBackup

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
