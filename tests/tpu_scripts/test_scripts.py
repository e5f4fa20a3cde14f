"""Each script by itself; and dry runs, which print what would be done and touch nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tpu_scripts.conftest import FINISH, KINDS, RUN, SCRIPTS, Cloud, program

pytestmark = pytest.mark.system

ALL = ("create.sh", "setup.sh", "launch.sh", "watch.sh", "fetch.sh", "teardown.sh")


def everything(directory: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}


@pytest.mark.parametrize("kind", KINDS)
def test_dry_run_prints_what_a_run_does_and_touches_nothing(cloud: Cloud, kind: str) -> None:
    settings: dict[str, Any] = {
        **KINDS[kind],
        "SPOT": 1,
        "NETWORK": "net",
        "SUBNETWORK": "sub",
        "KEEP": 1,
        "POLL": 0.7,
    }
    settings |= {"SERVICE_ACCOUNT": "me@x.iam.gserviceaccount.com", "INTERNAL_IP": 1}
    (cloud.work / "prepared").mkdir()
    (cloud.work / "prepared" / "shard").touch()
    before = everything(cloud.work), everything(cloud.world)
    dry = cloud.run(
        "watch.sh", "--dry-run", "--", "--seeds", "[0, 1]", INPUTS="prepared", **settings
    )
    assert dry.status == 0, dry.err
    assert (everything(cloud.work), everything(cloud.world)) == before
    ended = cloud.run("watch.sh", "--", "--seeds", "[0, 1]", INPUTS="prepared", **settings)
    assert ended.status == 0, ended.err
    printed = [named(words) for words in dry.commands if words[0] == "gcloud"]
    # Workers are asked at once, in any order
    assert sorted(printed) == sorted(named(call) for call in cloud.calls)
    order = [" ".join(words[:5]) for words in printed]
    assert order == [" ".join(named(call)[:5]) for call in cloud.calls]


def named(words: list[str]) -> list[str]:
    """Replace the names of machines: those of a group's a dry run cannot know."""
    return ["MACHINE" if word in ("kd-0", "kd-1", "kd-w", "kd-x") else word for word in words]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_before_a_slice_is_there_are_refused(cloud: Cloud, kind: str) -> None:
    for script in ("setup.sh", "launch.sh"):
        early = cloud.run(script, **KINDS[kind])
        assert early.status == 1
        assert "kd is not ready (no such slice), expected a slice made by create.sh" in early.err


@pytest.mark.parametrize("kind", KINDS)
def test_launch_before_setup_is_refused(cloud: Cloud, kind: str) -> None:
    assert cloud.run("create.sh", **KINDS[kind]).status == 0
    unset = cloud.run("launch.sh", **KINDS[kind])
    assert unset.status == 1
    assert "worker.sh" in unset.err


@pytest.mark.parametrize("kind", KINDS)
def test_steps_repeated_leave_what_is_there_and_running(cloud: Cloud, kind: str) -> None:
    cloud.kdjax(RUN, FINISH)
    settings = KINDS[kind]
    for _ in range(2):
        assert cloud.run("create.sh", **settings).status == 0
    assert cloud.slices == ["kd"]
    assert "set up: kdjax, Python 3.12.0" in cloud.run("setup.sh", **settings).err
    for _ in range(2):
        assert cloud.run("launch.sh", **settings).status == 0
    assert len(cloud.starts()) == 1
    # What runs has no results yet.
    nothing = cloud.run("fetch.sh", **settings)
    assert nothing.status == 1
    assert "Did not find existing container" in nothing.err


@pytest.mark.parametrize("kind", KINDS)
def test_teardown_leaves_nothing_whether_or_not_a_slice_is_there(cloud: Cloud, kind: str) -> None:
    settings = KINDS[kind]
    assert cloud.run("teardown.sh", **settings).status == 0
    assert cloud.run("create.sh", **settings).status == 0
    assert cloud.run("teardown.sh", **settings).status == 0
    assert cloud.slices == []
    # A group has a policy and a template besides.
    assert (cloud.world / "made.json").exists() == (kind == "group")
    if kind == "group":
        assert (cloud.world / "made.json").read_text() == "[]"


def test_group_of_one_machine_needs_no_policy(cloud: Cloud) -> None:
    assert cloud.run("create.sh", ACCELERATOR="tpu7x-8").status == 0
    assert cloud.called("workload-policy") == 0
    assert cloud.called("--size=1") == 1
    assert cloud.called("--max-run-duration=4500s") == 1  # an hour and 15 minutes


def test_policy_and_template_left_by_an_earlier_group_are_made_anew(cloud: Cloud) -> None:
    cloud.write("made", ["template kd", "policy kd"])
    ended = cloud.run("create.sh", ACCELERATOR="tpu7x-16")
    assert ended.status == 0, ended.err
    assert cloud.called("instance-templates delete") == 1
    assert cloud.slices == ["kd"]


def test_setup_repeated_installs_only_what_is_missing(cloud: Cloud) -> None:
    cloud.run("create.sh")
    home = cloud.world / "slices/kd/workers/0/kdjax"
    for _ in range(2):
        assert cloud.run("setup.sh").status == 0
    (home / "venv/bin/kdjax").unlink()
    assert cloud.run("setup.sh").status == 0
    assert not (home / "venv/bin/kdjax").exists()  # installed for this archive, so left
    (home / "installed").unlink()
    assert cloud.run("setup.sh").status == 0
    assert (home / "venv/bin/kdjax").exists()


def test_failed_set_up_says_worker_and_cause(cloud: Cloud) -> None:
    (cloud.world / "bin/uv").write_text("#!/bin/sh\n[ $1 != pip ]\n")
    cloud.run("create.sh")
    ended = cloud.run("setup.sh")
    assert ended.status == 1
    assert "setup.sh: worker 0: worker.sh: kdjax cannot be installed" in ended.err


def ask_worker(cloud: Cloud, *words: str) -> str:
    """Run worker.sh in the home of the first worker and return what it prints."""
    ended = subprocess.run(
        ["bash", str(SCRIPTS / "worker.sh"), *words],
        env={
            "HOME": str(cloud.world / "slices/kd/workers/0"),
            "PATH": f"{cloud.world / 'bin'}:{os.environ['PATH']}",
            "FAKE_CLOUD": str(cloud.world),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.strip()


def test_job_outlives_the_connection_and_stops_saving(cloud: Cloud) -> None:
    cloud.kdjax(RUN)
    for script in ("create.sh", "setup.sh", "launch.sh"):
        assert cloud.run(script).status == 0
    home = cloud.world / "slices/kd/workers/0"
    while not (answer := ask_worker(cloud, "status")).endswith("step 0"):
        assert answer == "running -"
    assert answer == "running - going on from step 0"
    assert ask_worker(cloud, "stop", "5").startswith("exited 75 saved at step")
    assert int((cloud.bucket("kd") / "runs/part1/checkpoints/step").read_text()) > 0
    assert ask_worker(cloud, "stop", "5").startswith("exited 75")  # again is fine
    (home / "kdjax/rc").unlink()
    assert ask_worker(cloud, "status").startswith("dead - vanished, last said: saved at step")


def test_job_that_ends_while_its_status_is_asked_for_has_exited(cloud: Cloud) -> None:
    cloud.kdjax(RUN)
    for script in ("create.sh", "setup.sh", "launch.sh"):
        assert cloud.run(script).status == 0
    home = cloud.world / "slices/kd/workers/0/kdjax"
    while ask_worker(cloud, "status") == "running -":
        continue
    # worker.sh reads the job's command line through this tr, which lets the job end before it.
    program(
        cloud.world / "bin/tr",
        "#!/bin/bash\n"
        f"kill -TERM $(cat {home}/kdjax.pid) 2>/dev/null\n"
        f"while kill -0 $(cat {home}/job.pid) 2>/dev/null; do sleep 0.02; done\n"
        f'exec {shutil.which("tr")} "$@"\n',
    )
    assert ask_worker(cloud, "status").startswith("exited 75 saved at step")


def test_scripts_are_executable_files() -> None:
    assert all(os.access(SCRIPTS / script, os.X_OK) for script in (*ALL, "spread.sh"))


def test_tests_named_in_the_documentation_are_there() -> None:
    page = (SCRIPTS.parent / "docs" / "tpu.md").read_text(encoding="utf-8")
    table = page.partition("## What goes wrong")[2].partition("\n\nAll of it")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    named = []
    for line in rows:
        named += re.findall(r"`([\w/.]+)`", line.rpartition(" | ")[2])
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert len(named) > 15
    for name in named:
        assert (SCRIPTS.parent / name).exists() or re.search(rf"def test_\w*{name}", tests), name
