"""A kdjax that is none: it counts steps, keeps them where checkpoints go, saves on SIGTERM, writes
what a study does.

$FAKE_CLOUD/kdjax.json has, for the n-th start on a worker, what to do (the last one holds on):
{"do": "finish"}, {"do": "run"} until it is told to stop, {"do": "exit", "status": N, "says": TEXT},
or a mapping of workers to these.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

WORLD = Path(os.environ["FAKE_CLOUD"])
WORKER = os.environ["FAKE_WORKER"]


def after(flag: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1]


part = after("--part") if "--part" in sys.argv else "1/1"
runs = (
    WORLD
    / "bucket"
    / after("--train.checkpoint.directory").removeprefix("gs://")
    / "runs"
    / f"part{part[0]}"
)
saved = runs / "checkpoints" / "step"
step = 0
if saved.exists():
    step = int(saved.read_text())
starts = WORLD / f"starts-{part[0]}-{WORKER}.jsonl"
with starts.open("a") as file:
    distributed = os.environ.get("KDJAX_DISTRIBUTED")
    file.write(json.dumps({"words": sys.argv[1:], "step": step, "distributed": distributed}) + "\n")
plan: list[Any] = json.loads((WORLD / "kdjax.json").read_text())
mine = plan[min(len(starts.read_text().splitlines()), len(plan)) - 1]
mine = mine if "do" in mine else mine[WORKER]


def save(number: int, frame: FrameType | None) -> None:
    if WORKER == "0":
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_text(str(step))
    print(f"saved at step {step}", flush=True)
    sys.exit(75)


signal.signal(signal.SIGTERM, save)
print(mine.get("says", f"going on from step {step}"), flush=True)
if mine["do"] == "exit":
    sys.exit(mine["status"])
while mine["do"] == "run" or (WORKER != "0" and not (runs / "result.json").exists()):
    step += 1
    time.sleep(0.01)
if WORKER == "0":
    runs.mkdir(parents=True, exist_ok=True)
    (runs / "result.json").write_text(json.dumps({"step": step}))
    out = Path(after("--out"))
    (out / "data").mkdir(parents=True, exist_ok=True)
    (out / "data" / "shard").touch()
    for name in ("study.json", "report.html"):
        (out / name).write_text(Path("recipe.yaml").read_text())
print("all runs finished", flush=True)
