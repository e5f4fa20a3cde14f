"""What a user can get wrong is one line with status 2, before anything is asked of the cloud."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tpu_scripts.conftest import SCRIPTS, Cloud, Ended

pytestmark = pytest.mark.system

COMMANDS = (
    "create.sh",
    "setup.sh",
    "launch.sh",
    "watch.sh",
    "fetch.sh",
    "teardown.sh",
    "spread.sh",
)
MISSING = {
    "create.sh": ("MAX_HOURS",),
    "setup.sh": ("CONFIG",),
    "watch.sh": ("CONFIG", "MAX_HOURS"),
    "spread.sh": ("CONFIG", "MAX_HOURS", "PARTS"),
}


def refused(ended: Ended, says: str) -> None:
    assert (ended.status, ended.out) == (2, ""), ended
    assert ended.err.count("\n") == 1, ended
    assert says in ended.err


@pytest.mark.parametrize("script", COMMANDS)
def test_missing_settings_are_named_in_one_line(cloud: Cloud, script: str) -> None:
    ended = cloud.run(script, without=("ZONE", "BUCKET"))
    refused(
        ended,
        f"{script}: missing ZONE BUCKET, expected in a settings file (see "
        "tpu_scripts/slice.env.example)",
    )
    if script in MISSING:
        ended = cloud.run(script, without=MISSING[script])
        refused(ended, f"{script}: missing {MISSING[script][0]}")
    assert cloud.calls == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "NAME=my slice",
            "NAME is 'my slice', expected lower-case letters, digits and dashes, a letter first",
        ),
        ("NAME=$(reboot)", "NAME is '$(reboot)', expected"),
        ("NAME=kd\nx", "NAME holds a control character"),
        ("PROJECT=My Project", "PROJECT is 'My Project', expected a project ID"),
        ("ZONE=us-west4", "ZONE is 'us-west4', expected a zone"),
        ("BUCKET=gs://b", "BUCKET is 'gs://b', expected a bucket's name without gs://"),
        ("STUDY=a/b", "STUDY is 'a/b', expected"),
        (
            "ACCELERATOR=v5e-8",
            "ACCELERATOR is 'v5e-8', expected v5litepod-N or v6e-N (N chips), v5p-N or tpu7x-N",
        ),
        (
            "ACCELERATOR=v6e-5",
            "ACCELERATOR is 'v6e-5', expected 1, 4, 8, 16, 32, 64, 128 or 256 chips",
        ),
        ("ACCELERATOR=v5p-12", "ACCELERATOR is 'v5p-12', expected a multiple of 8 cores"),
        ("ACCELERATOR=tpu7x-24", "'tpu7x-24' with 12 chips, expected TOPOLOGY for it"),
        ("TOPOLOGY=2x2", "TOPOLOGY is '2x2"),
        ("PART=3/2", "PART is '3/2', expected I/N with I from 1 to N"),
        ("PART=a", "PART is 'a', expected I/N"),
        ("PYTHON=3.10", "PYTHON is '3.10', expected Python 3.11 or newer"),
        ("MAX_HOURS=ten", "MAX_HOURS is 'ten', expected a number"),
        ("POLL=-1", "POLL is '-1', expected a number"),
        ("RESTARTS=1.5", "RESTARTS is '1.5', expected a whole number"),
        ("SPOT=yes", "SPOT is 'yes', expected 0 or 1"),
        ("CONFIG=none.yaml", "CONFIG is 'none.yaml': no such file, expected a recipe"),
        ("INPUTS=/etc", "INPUTS names /etc, expected a path below the working directory"),
        ("INPUTS=a/../../b", "INPUTS names a/../../b"),
        ("INPUTS=a;b", "INPUTS is 'a;b', expected relative paths"),
        (
            "ACELERATOR=v6e-8",
            "command line: unknown setting ACELERATOR, expected one of ACCELERATOR ATTEMPTS",
        ),
        ("--force", "unknown option --force"),
        ("other.env", "other.env: no such settings file"),
    ],
)
def test_impossible_setting_is_refused_in_one_line(cloud: Cloud, setting: str, says: str) -> None:
    if setting.startswith("TOPOLOGY"):
        refused(
            cloud.run("watch.sh", setting, ACCELERATOR="tpu7x-16"),
            "TOPOLOGY is 2x2, expected as many chips",
        )
    else:
        refused(cloud.run("watch.sh", setting), says)
    assert cloud.calls == []
    assert not (cloud.work / "runs").exists()


def test_malformed_line_of_a_settings_file_is_named(cloud: Cloud) -> None:
    (cloud.work / "slice.env").write_text("# mine\nZONE=us-west4-a\nexport NAME=kd\n")
    refused(
        cloud.run("watch.sh", "slice.env"),
        "slice.env, line 3: expected NAME=value, found 'export NAME=kd'",
    )
    (cloud.work / "slice.env").write_text("ZNE=us-west4-a\n")
    refused(cloud.run("watch.sh", "slice.env"), "slice.env, line 1: unknown setting ZNE")


def test_command_line_goes_before_the_file_and_the_file_before_the_environment(
    cloud: Cloud,
) -> None:
    (cloud.work / "my slice.env").write_text(
        'NAME=filed\nZONE=us-east1-c\r\nOUT="with spaces"\n\n  # mine\n'
    )
    ended = cloud.run("teardown.sh", "--dry-run", "my slice.env", "NAME=given", without=("ZONE",))
    assert ended.status == 0, ended.err
    assert ended.commands[0][4:6] == ["delete", "given"]
    assert "--zone=us-east1-c" in ended.commands[0]
    ended = cloud.run("teardown.sh", "--dry-run", "my slice.env")
    assert ended.commands[0][4:6] == ["delete", "filed"]


def test_paths_with_quotes_and_blanks_reach_the_slice_unchanged(cloud: Cloud) -> None:
    config = "it's a $HOME; recipe.yaml"
    out = 'my "results"; $(x)'
    (cloud.work / config).write_text("odd\n")
    (cloud.work / "prepared" / "shards").mkdir(parents=True)
    (cloud.work / "prepared" / "shards" / "a").touch()
    ended = cloud.run(
        "watch.sh",
        "--",
        "--data.files",
        "it's $HOME; 'x' *",
        CONFIG=config,
        OUT=out,
        INPUTS="prepared",
    )
    assert ended.status == 0, ended.err
    assert (cloud.work / out / "study.json").read_text() == "odd\n"
    assert cloud.starts()[0]["words"][-2:] == ["--data.files", "it's $HOME; 'x' *"]
    assert cloud.bucket("kd.inputs/prepared/shards/a").exists()


def test_changes_that_are_not_committed_are_refused(cloud: Cloud, tmp_path: Path) -> None:
    changed = shutil.copytree(cloud.settings["SOURCE"], tmp_path / "changed")
    (changed / "kdjax" / "__init__.py").write_text("x = 1\n")
    refused(
        cloud.run("watch.sh", SOURCE=changed), "has changes that are not committed, expected none"
    )
    refused(cloud.run("watch.sh", SOURCE=cloud.work), "expected a git checkout of kdjax")
    assert cloud.calls == []


def test_inputs_that_are_nowhere_are_refused(cloud: Cloud) -> None:
    ended = cloud.run("watch.sh", INPUTS="teacher")
    assert ended.status == 1
    assert "One or more URLs matched no objects" in ended.err
    assert cloud.slices == []
    cloud.bucket("kd.inputs/teacher").mkdir(parents=True)
    assert cloud.run("watch.sh", INPUTS="teacher").status == 0


@pytest.mark.parametrize("script", COMMANDS)
def test_help_prints_the_header_of_the_script(script: str) -> None:
    ended = subprocess.run([SCRIPTS / script, "--help"], capture_output=True, text=True, check=True)
    assert f"tpu_scripts/{script} [--dry-run]" in ended.stdout
    assert "set -euo" not in ended.stdout


def test_example_of_settings_is_read_as_a_settings_file(cloud: Cloud) -> None:
    example = (SCRIPTS / "slice.env.example").read_text()
    (cloud.work / "slice.env").write_text(
        example.replace("configs/tpu/v5e-8.yaml", "my recipe.yaml")
    )
    ended = cloud.run("create.sh", "--dry-run", "slice.env")
    assert ended.status == 0
    assert "--spot" in ended.commands[1]
    documented = {
        line.lstrip("#").split("=")[0]
        for line in example.splitlines()
        if "=" in line and " " not in line.split("=")[0]
    }
    known = cloud.run("create.sh", "X=1").err.split("expected one of ")[1].split()
    assert documented | {"PART", "PARTS", "SOURCE", "STATE"} == set(known)
