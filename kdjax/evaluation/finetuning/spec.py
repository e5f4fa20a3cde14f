"""A trial of fine-tuning before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.evaluation.finetuning.results import Setting


@dataclass(frozen=True)
class TrialSpec:
    """A trial before it is trained.

    Attributes:
        setting: learning rate, batch size, epochs and steps.
        seed: fine-tuning seed.
        draw: number of the draw of few-shot rows; None: all rows are trained on.
    """

    setting: Setting
    seed: int
    draw: int | None = None

    @property
    def name(self) -> str:
        """Return the trial's name, that of its file."""
        hyperparameters = self.setting
        # All digits: two rates that differ in the last one are two trials.
        parts = [f"lr{hyperparameters.learning_rate!r}", f"batch{hyperparameters.batch_size}"]
        if hyperparameters.epochs is None:
            parts.append(f"steps{hyperparameters.steps}")
        else:
            parts.append(f"epochs{hyperparameters.epochs}")
        parts.append(f"seed{self.seed}")
        if self.draw is not None:
            parts.append(f"draw{self.draw}")
        return "-".join(parts)
