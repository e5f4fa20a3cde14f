"""A cloud for the scripts: a fake gcloud first on PATH, machines that are directories, and a kdjax
that only counts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "tpu_scripts"
KINDS = {"queued": {"ACCELERATOR": "v5litepod-8"}, "group": {"ACCELERATOR": "tpu7x-16"}}
"""Settings of a slice that is queued for, and of a group of machines."""
RUN = {"do": "run"}
FINISH = {"do": "finish"}
"""What the fake kdjax does."""
UV = """#!/bin/bash
# Puts stubs where uv would install.
case $1 in
  venv) mkdir -p venv/bin ;;
  pip) [[ -f kdjax.tar.gz ]] && for name in kdjax python; do cp "$FAKE_CLOUD/bin/$name-stub" "venv/bin/$name"; done ;;
esac
"""  # noqa: E501


@dataclass(frozen=True)
class Ended:
    """A script's exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line that it printed: the commands of a dry run."""
        return [shlex.split(line) for line in self.out.splitlines()]


@dataclass
class Cloud:
    """The fake cloud, and the settings that scripts get for it."""

    world: Path
    work: Path
    settings: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        script: str,
        *words: str,
        without: tuple[str, ...] = (),
        limit: float = 120,
        **settings: object,
    ) -> Ended:
        """Run a script to its end, in a directory of its own."""
        process = self.start(script, *words, without=without, **settings)
        out, err = process.communicate(timeout=limit)
        return Ended(process.returncode, out, err)

    def start(
        self, script: str, *words: str, without: tuple[str, ...] = (), **settings: object
    ) -> subprocess.Popen[str]:
        """Start a script."""
        variables = {**self.settings, **{name: str(value) for name, value in settings.items()}}
        # Only what is set here reaches a script, and not the environment of the tests.
        environment = {"HOME": str(self.work), "PATH": f"{self.world / 'bin'}:{os.environ['PATH']}"}
        environment |= {"FAKE_CLOUD": str(self.world)}
        environment |= {name: value for name, value in variables.items() if name not in without}
        return subprocess.Popen(
            [str(SCRIPTS / script), *words],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, name: str, value: Any) -> None:
        (self.world / f"{name}.json").write_text(json.dumps(value))

    def fates(self, *fates: list[str]) -> None:
        """Set the states that the slices to come go through."""
        self.write("fates", fates)

    def faults(self, *faults: dict[str, Any]) -> None:
        """Set the calls that fail."""
        self.write("faults", [{"times": 1, **fault} for fault in faults])

    def kdjax(self, *plan: dict[str, Any]) -> None:
        """Set what kdjax does, start by start."""
        self.write("kdjax", plan)

    @property
    def calls(self) -> list[list[str]]:
        """Every call of gcloud from this side."""
        path = self.world / "calls.json"
        return json.loads(path.read_text()) if path.exists() else []

    def called(self, *words: str) -> int:
        """Count the calls that have these words in this order."""
        return sum(" ".join(words) in " ".join(call) for call in self.calls)

    def starts(self, worker: int = 0, part: int = 1) -> list[dict[str, Any]]:
        """Read the starts of kdjax on a worker."""
        path = self.world / f"starts-{part}-{worker}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def slices(self) -> list[str]:
        return sorted(path.name for path in (self.world / "slices").glob("*"))

    def bucket(self, path: str) -> Path:
        return self.world / "bucket" / "a-bucket" / path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git checkout of what stands for kdjax; a test that changes it does so in a copy."""
    source = tmp_path_factory.mktemp("checkout") / "source"
    (source / "kdjax").mkdir(parents=True)
    (source / "kdjax" / "__init__.py").touch()
    # Whatever git is configured to do on this machine stays out of it.
    git = [
        "git",
        "-C",
        str(source),
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@y",
        "-c",
        "commit.gpgsign=false",
    ]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    return source


@pytest.fixture
def cloud(tmp_path: Path, checkout: Path) -> Iterator[Cloud]:
    world = tmp_path / "world"
    work = tmp_path / "work"
    for directory in (world / "bin", work):
        directory.mkdir(parents=True)
    # Programs of the world come first on PATH, where scripts find them by their names.
    for name, script in (("gcloud", "gcloud.py"), ("kdjax-stub", "kdjax.py")):
        program(
            world / "bin" / name,
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(HERE / script))} "$@"\n',  # noqa: E501
        )
    program(world / "bin" / "python-stub", "#!/bin/sh\necho kdjax, Python 3.12.0\n")
    program(world / "bin" / "uv", UV)
    (work / "my recipe.yaml").write_text("arms: {scratch: {}}\n")
    double = Cloud(world, work)
    # Settings as a user would have them, and times that let a test end soon.
    double.settings = {
        **{
            "PROJECT": "a-project",
            "ZONE": "us-west4-a",
            "NAME": "kd",
            "ACCELERATOR": "v5litepod-8",
        },
        **{
            "BUCKET": "a-bucket",
            "CONFIG": "my recipe.yaml",
            "MAX_HOURS": "1",
            "SOURCE": str(checkout),
        },
        **{
            "POLL": "0.02",
            "BACKOFF": "0.01",
            "ATTEMPTS": "3",
            "UNREACHABLE": "2",
            "STOP_SECONDS": "5",
        },
    }
    double.kdjax({"do": "finish"})
    yield double
    for name in double.slices:  # a test that failed may have left jobs
        subprocess.run(
            [world / "bin" / "gcloud", "compute", "tpus", "queued-resources", "delete", name],
            env={"FAKE_CLOUD": str(world)},
            check=False,
            capture_output=True,
        )
