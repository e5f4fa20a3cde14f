"""Settings of fine-tuning on labelled tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdjax.config.values import FLOAT32_LIMIT, check_number, check_range, expect
from kdjax.errors import InputError

Pooling = Literal["first", "mean"]
"""What a task's head reads of the last layer: the first token's state, or the mean over tokens."""

_WHERE = "evaluation.finetune"


@dataclass(frozen=True)
class FewShotConfig:
    """Fine-tuning on few training rows, with the settings of `evaluation.finetune` besides."""

    examples: int = 32
    """Training rows of a draw, 2 to 1,000,000,000; of classes as evenly as their rows allow."""
    draws: int = 5
    """Number of draws, 1 to 1,000; the same rows for every model. The score is the mean over
    them."""
    steps: int = 200
    """Steps of a draw, 1 to 1,000,000,000: so few rows take many epochs."""

    def __post_init__(self) -> None:
        where = f"{_WHERE}.few_shot"
        check_range(self, f"{where}.", 2, 10**9, "examples")
        check_range(self, f"{where}.", 1, 1000, "draws")
        check_range(self, f"{where}.", 1, 10**9, "steps")


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of the whole encoder with a fresh head."""

    epochs: int = 3
    """Times that each training row is read, 1 to 1,000,000; not used where `steps` is set."""
    steps: int | None = None
    """Number of steps, 1 to 1,000,000,000. None: by epochs."""
    batch_size: int = 32
    """Rows of a step, 1 to 16,777,216. The last batch of rows of like length may have fewer."""
    learning_rate: float = 1e-4
    """Peak learning rate, which decays to 0 on a line; above 0."""
    warmup: float = 0.1
    """Share of the steps that warm up, from 0; a number from 1 on is a number of steps."""
    weight_decay: float = 0.01
    """Decoupled weight decay, from 0; not on biases and LayerNorms."""
    eps: float = 1e-6
    """Adam's epsilon, above 0."""
    clip: float = 0.0
    """Largest global gradient norm, from 0; 0: no clipping."""
    pool: Pooling = "first"
    """What the head reads of the last layer: the first token, as in BERT, or the mean over tokens,
    which needs less training."""
    seeds: int = 1
    """Fine-tuning seeds for each model, 1 to 1,000: each has a head, an order of rows and dropout
    of its own. The score is the mean over them."""
    lanes: int = 0
    """The most trials that are trained side by side as one program, 1 to 1,000. 0: as many as is
    faster on the device at hand (`kdjax.evaluation.finetuning.trial_groups`). Changes results by no
    more than rounding."""
    learning_rates: tuple[float, ...] = (1e-5, 3e-5, 5e-5, 8e-5)
    """Peak learning rates of the grid, each above 0 and once."""
    batch_sizes: tuple[int, ...] = (16, 32)
    """Batch sizes of the grid, each 1 to 16,777,216 and once."""
    epoch_counts: tuple[int, ...] = (5,)
    """Numbers of epochs of the grid, each 1 to 1,000,000 and once."""
    few_shot: FewShotConfig = FewShotConfig()
    """Fine-tuning on few rows."""
    intermediate: str = ""
    """A task that the encoder is fine-tuned on first, such as mnli, for `intermediate_tasks` (Phang
    et al. 2018, arXiv 1811.01088). Empty: none."""
    intermediate_tasks: tuple[str, ...] = ("mrpc", "rte", "stsb")
    """The tasks that start from the encoder tuned on `intermediate`."""

    def __post_init__(self) -> None:
        # 0 steps once meant that there is no fine-tuning.
        if self.steps == 0 and not isinstance(self.steps, bool):
            raise InputError(
                f"{_WHERE}.steps is 0, expected at least 1, or none: to leave fine-tuning out, "
                "leave fixed out of evaluation.protocols"
            )
        check_range(self, f"{_WHERE}.", 1, 10**6, "epochs")
        check_range(self, f"{_WHERE}.", 1, 10**9, "steps")
        check_range(self, f"{_WHERE}.", 1, 2**24, "batch_size")
        check_range(self, f"{_WHERE}.", 1, 1000, "seeds")
        # Adam divides by eps where a gradient is 0.
        check_range(self, f"{_WHERE}.", 0, FLOAT32_LIMIT, "learning_rate", "eps", above=True)
        # 0 turns each of these off, or leaves it open.
        check_range(self, f"{_WHERE}.", 0, 10**9, "warmup")
        check_range(self, f"{_WHERE}.", 0, FLOAT32_LIMIT, "weight_decay", "clip")
        check_range(self, f"{_WHERE}.", 0, 1000, "lanes")
        expect(self.pool in ("first", "mean"), f"{_WHERE}.pool", repr(self.pool), "first or mean")
        self._check_grid()
        self._check_intermediate()

    def _check_grid(self) -> None:
        """Check the lists of the grid.

        Raises:
            InputError: one is empty, has a value twice, or one out of range.
        """
        for learning_rate in _members(self.learning_rates, "learning_rates"):
            check_number(learning_rate, f"{_WHERE}.learning_rates", 0, FLOAT32_LIMIT, above=True)
        for size in _members(self.batch_sizes, "batch_sizes"):
            check_number(size, f"{_WHERE}.batch_sizes", 1, 2**24, whole=True)
        for count in _members(self.epoch_counts, "epoch_counts"):
            check_number(count, f"{_WHERE}.epoch_counts", 1, 10**6, whole=True)

    def _check_intermediate(self) -> None:
        """Check the tasks that start from another one's encoder.

        Raises:
            InputError: there is no name, or the intermediate task is one of them.
        """
        name = f"{_WHERE}.intermediate_tasks"
        tasks = self.intermediate_tasks
        is_names = isinstance(tasks, (list, tuple)) and all(isinstance(task, str) for task in tasks)
        expect(is_names, name, repr(tasks), "names of tasks")
        expected = f"other tasks than {_WHERE}.intermediate"
        expect(not self.intermediate or self.intermediate not in tasks, name, list(tasks), expected)


def grid_size(
    learning_rates: Sequence[Any], batch_sizes: Sequence[Any], epoch_counts: Sequence[Any]
) -> int:
    """Count the settings of a grid: each learning rate with each batch size and number of epochs.

    Args:
        learning_rates: the learning rates.
        batch_sizes: the batch sizes.
        epoch_counts: the numbers of epochs.
    """
    return len(learning_rates) * len(batch_sizes) * len(epoch_counts)


def _members(values: Any, name: str) -> Any:
    """Return the values of a list of the grid.

    Raises:
        InputError: it is no list, is empty, or has a value twice.
    """
    is_list = isinstance(values, (list, tuple)) and bool(values)
    is_distinct = is_list and len(set(values)) == len(values)
    expect(is_distinct, f"{_WHERE}.{name}", repr(values), "one or more values, each once")
    return values
