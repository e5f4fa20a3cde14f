"""Use kdjax as somebody does who has nothing but its wheel (`make test-wheel`).

Run by the Python of an environment in which the wheel is installed, from anywhere but a checkout.
Each command is the installed `kdjax`; it prints what it did and how long that took.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kdjax

COMMAND = Path(sys.executable).with_name("kdjax")
TINY = (
    *("--data.files", "my/*.txt"),
    *("--data.documents", "lines"),
    *("--data.tokenizer.size", "160"),
    *("--teacher.train.budget", "2e9"),
    *("--budget.flops", "1e9"),
    *("--seeds", "[0, 1]"),
    *("--train.evaluations", "1"),
    *("--train.batch_size", "8"),
    *("--teacher.train.batch_size", "8"),
    *("--evaluation.mlm_probe.tokens", "4000"),
)
"""Overrides that make the study of one's own text a matter of seconds."""
WORDS = ("river", "stone", "winter", "garden", "letter", "music", "travel", "window", "morning")


def main() -> None:
    """Run the commands in a new directory; stop at the first that fails."""
    assert "site-packages" in kdjax.__file__, f"{kdjax.__file__} is a checkout"
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        write_text(here / "my" / "text.txt")
        run(here, "--help")
        run(here, "init")
        run(here, "init", "demo")
        run(here, "init", "own-text", "study.yaml")
        run(here, "init", "one_arm.py")
        run(here, "settings", "train.optimizer")
        run(here, "completion", "bash")
        # What it finds is the machine's business.
        run(here, "doctor", "study.yaml", *TINY, "--out", "runs/own", statuses=(0, 2))
        prices = json.loads(run(here, "price", "demo.yaml", "--json"))
        assert prices.keys() == {"scratch", "logit", "tinybert", "minilm"}, prices.keys()
        run(here, "compare", "study.yaml", "--out", "runs/own", *TINY)
        results = json.loads((here / "runs" / "own" / "results.json").read_text())
        assert len(results["runs"]) == 4, len(results["runs"])
        assert (here / "runs" / "own" / "report.html").stat().st_size > 10_000
        run(here, "audit", "runs/own")
    print(f"kdjax {kdjax.__version__} works on Python {sys.version.split()[0]}")


def write_text(path: Path) -> None:
    """Write some hundred lines of made-up text."""
    chance = random.Random(0)
    lines = [" ".join(chance.choices(WORDS, k=chance.randint(8, 40))) for _ in range(600)]
    path.parent.mkdir()
    path.write_text("\n".join(lines), encoding="utf-8")


def run(here: Path, *words: str, statuses: tuple[int, ...] = (0,)) -> str:
    """Run a command and return what it printed.

    Args:
        here: working directory.
        words: the command's own words.
        statuses: exit statuses that it may end with.
    """
    begun = time.monotonic()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        [COMMAND, *words], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    print(f"{time.monotonic() - begun:6.1f} s  kdjax {' '.join(words)[:60]}", flush=True)
    if ended.returncode not in statuses:
        sys.exit(f"{ended.stdout}\n{ended.stderr}\nended with {ended.returncode}")
    return ended.stdout


if __name__ == "__main__":
    main()
