"""Show whether a change of the code keeps runs as they were, bit for bit.

    python -m benchmarks.bits --out before.json     in the tree as it was
    python -m benchmarks.bits --out after.json --against before.json     in the tree as it is

Runs one small study of each kind: all arms, an arm of two phases, stored teacher outputs, a sweep
over budgets, a mesh of eight devices, seeds vmapped, dropout with accumulated gradients, and rotary
positions. Of every run the final parameters' SHA-256, the FLOPs spent, the steps, the metrics and
the learning curve are written down. Both trees have to run on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import small_study

COMPARED = ("params_sha256", "spent", "steps", "metrics", "curve")
TWO_PHASES = [
    {"terms": [{"name": "mlm"}, {"name": "logit"}], "until": 0.5},
    {"terms": [{"name": "hidden_mse"}]},
]


@dataclass(frozen=True)
class Study:
    """One study to run.

    Attributes:
        sections: sections of the recipe that differ from `tests.support.small_study`.
        words: settings on the command line.
        command: `compare` or `sweep`.
        devices: emulated devices.
    """

    sections: dict[str, Any]
    words: tuple[str, ...] = ()
    command: str = "compare"
    devices: int = 1
    seeds: list[int] = field(default_factory=lambda: [0])


def student(**changes: Any) -> dict[str, Any]:
    """Return the small study's student with some settings changed."""
    return {**small_study.STUDENT, **changes}


STUDIES = {
    "plain": Study({}),
    "phases": Study({"arms": {"two": {"phases": TWO_PHASES}}}),
    "cache": Study(
        {
            "arms": {"logit": {"teacher": "cached"}},
            "cache": {"logits": "all", "dtype": "float32", "batch_size": 8, "shared_by": 1000},
        },
        words=("--data.mask_copies", "2"),
    ),
    "sweep": Study(
        {"arms": {"scratch": {}, "logit": {}}, "sweep": {"budget.flops": [3e7, 6e7]}},
        command="sweep",
    ),
    "mesh": Study(
        {"arms": {"logit": {}, "minilm": {}}},
        words=("--train.mesh.fsdp", "2", "--train.mesh.tensor", "2"),
        devices=8,
    ),
    "vmapped": Study(
        {"arms": {"logit": {}}}, words=("--train.vmapped_seeds", "3"), seeds=[0, 1, 2]
    ),
    "dropout": Study(
        {"arms": {"tinybert": {}}, "student": student(dropout=0.1, attention_dropout=0.1)},
        words=("--train.grad_accum_steps", "2"),
    ),
    "rotary": Study(
        {
            "arms": {"scratch": {}, "logit": {}},
            "student": student(positions="rotary", norm="pre", init="by_width"),
        }
    ),
}


def run(name: str, study: Study, directory: Path) -> dict[str, Any]:
    """Run a study, and return the compared values of each of its runs."""
    # The processes take their devices from the environment, before JAX is imported.
    evaluation = {"mlm_sequences": 16, "tasks": {}}
    recipe = small_study.write(
        directory / name, evaluation=evaluation, seeds=study.seeds, **study.sections
    )
    out = directory / name / "out"
    flags = f"--xla_force_host_platform_device_count={study.devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "kdjax", study.command, str(recipe), "--out", str(out)]
    subprocess.run([*command, *study.words], env=environment, check=True, capture_output=True)

    # A sweep has a results.json for each of its studies.
    values = {}
    for path in sorted(out.rglob("results.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["runs"]:
            place = path.parent.relative_to(out)
            values[f"{place}/{row['arm']}-seed{row['seed']}"] = {key: row[key] for key in COMPARED}
    return values


def main() -> None:
    """Run all studies, write their record, and compare it with an earlier one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the record, a JSON file")
    parser.add_argument("--against", type=Path, help="an earlier record")
    options = parser.parse_args()
    record = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, study in STUDIES.items():
            record[name] = run(name, study, Path(directory))
            print(f"{name}: {len(record[name])} runs", flush=True)
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    if options.against is None:
        return
    # Both records are read from their files: what JSON does to a value, it does to both.
    before = json.loads(options.against.read_text(encoding="utf-8"))
    now = json.loads(options.out.read_text(encoding="utf-8"))
    differing = [name for name in STUDIES if before.get(name) != now[name]]
    if differing:
        print(f"not the same: {', '.join(differing)}")
        sys.exit(1)
    print("the same, bit for bit")


if __name__ == "__main__":
    main()
