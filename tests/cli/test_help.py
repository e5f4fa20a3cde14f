"""Help: a command's own words first, settings by a line each, on one screen."""

from __future__ import annotations

import json
import math
import re
import subprocess

import pytest

from kdjax.cli.command_line import COMMANDS
from kdjax.recipes.settings import settings
from tests.study.conftest import kdjax

SCREEN = 50
"""Lines that a terminal shows."""
WIDTH = 100
"""Columns that it shows."""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", f"{WIDTH}")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_fits_a_screen_and_begins_with_its_own_arguments(name: str) -> None:
    ended = kdjax(name, "--help")
    lines = ended.out.splitlines()
    assert ended.status == 0
    # A terminal breaks lines that are longer than it is wide.
    shown = sum(max(1, math.ceil(len(line) / WIDTH)) for line in lines)
    assert shown <= SCREEN
    takes_recipe = COMMANDS[name].settings is not None
    assert ("`kdjax settings`" in ended.out) == takes_recipe
    if takes_recipe:
        assert lines.index("options:") < lines.index(
            "settings of the recipe, here as --SETTING VALUE:"
        )


def test_help_of_tune_names_its_settings_and_groups_below_them() -> None:
    out = kdjax("tune", "--help").out
    assert "  tune.trials: int = 0  Number of trials of each arm" in out
    assert "  tune.space.*: 4 settings" in out
    assert "data.files" not in out


def test_settings_without_a_name_are_a_line_each_and_with_one_in_full() -> None:
    listed = kdjax("settings").out.splitlines()
    every = json.loads(kdjax("settings", "--json").out)
    assert [line.split(":")[0] for line in listed] == [setting["name"] for setting in every]
    # Into a pipe lines are whole, whatever the terminal's width, so that `grep` finds all of them.
    assert max(map(len, listed)) > WIDTH
    pairs = zip(listed, settings(), strict=True)
    assert all(line.endswith(setting.summary) for line, setting in pairs)
    head, *meaning = kdjax("settings", "budget.flops").out.splitlines()
    assert head.startswith("budget.flops: float = ")
    assert meaning and all(line.startswith("    ") for line in meaning)
    refused = kdjax("settings", "bugdet")
    assert refused.status == 2
    assert "did you mean 'budget'?" in refused.complaint
    # Of hundreds of names the nearest are named, not all.
    unlike = kdjax("settings", "nosuch").complaint
    assert re.search(r"\(\d{3} are valid, the nearest of them \w+, \w+, \w+\)$", unlike)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("compare", "a.yaml", "--out", "x", "--sed", "3"),
            "compare: there is no option --sed (did you mean '--seeds'?)",
        ),
        (
            ("train", "a.yaml", "--out", "x", "--amr", "kd"),
            "train: there is no option --amr (did you mean '--arm'?)",
        ),
        (
            ("price", "a.yaml", "--mask_copies", "3"),
            "price: there is no option --mask_copies, expected one of --data.mask_copies",
        ),
        (("audit", "a", "b"), "audit: 'b' is one word too many, expected DIR"),
        (("audit", "a", "--jsn"), "audit: there is no option --jsn (valid: --help)"),
    ],
)
def test_word_that_a_command_does_not_take_is_refused_with_the_nearest(
    words: tuple[str, ...], complaint: str
) -> None:
    refused = kdjax(*words)
    assert refused.status == 2
    assert refused.complaint.strip().endswith(f"command line, {complaint}")


def test_bash_completes_commands_options_settings_and_their_values() -> None:
    script = kdjax("completion", "bash").out
    # One place for the script, here and in the documents.
    head = script.partition("\n\n")[0]
    assert "kdjax completion bash > ~/.local/share/bash-completion/completions/kdjax" in head
    assert "Copy this to" not in script

    def completed(*words: str) -> set[str]:
        line = " ".join(words)
        asked = f"""
            COMP_WORDS=({line}{' ""' if line.endswith(" ") else ""})
            COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            _shtab_kdjax
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        ended = subprocess.run(
            ["bash", "--norc"], input=script + asked, capture_output=True, text=True, check=True
        )
        return set(ended.stdout.split())

    assert {"compare", "compile", "completion"} <= completed("kdjax", "comp")
    assert completed("kdjax", "compare", "--train.log.") == {
        "--train.log.every",
        "--train.log.mlflow",
        "--train.log.profile",
        "--train.log.tensorboard",
        "--train.log.wandb",
    }
    assert completed("kdjax", "compare", "--data.regime", "un") == {"unlimited"}
    assert "own-text" in completed("kdjax", "init", "own-t")
    assert "--data.files" not in completed("kdjax", "settings", "--")


def test_completion_for_an_unknown_shell_is_refused_in_one_line() -> None:
    refused = kdjax("completion", "fish")
    assert refused.status == 2
    assert "invalid choice: 'fish'" in refused.complaint
