"""FLOPs spent on a teacher before a study's runs, and which of them an arm is charged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.budget.accounting import CASES, Budget
from kdjax.budget.ledger import schedule_phases
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.storage import hub
from kdjax.training.arm import Arm
from kdjax.training.phase_price import price
from kdjax.training.teacher.directories import read_card, source_directories
from kdjax.training.teacher.head import head_phase
from kdjax.training.teacher.pretraining import pretraining_flops


@dataclass(frozen=True)
class TeacherCost:
    """FLOPs spent on a teacher before a study's runs.

    Attributes:
        training: FLOPs of pretraining the teacher; 0: not known.
        tuning: FLOPs of training its encoder on, together with an MLM head.
        head: FLOPs of fitting an MLM head on a frozen encoder.
    """

    training: int = 0
    tuning: int = 0
    head: int = 0

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> TeacherCost:
        """Read the costs from a teacher's card, or from a study's facts of it."""
        tuning = int(facts.get("tuning_flops", 0))
        head = int(facts.get("head_flops", 0))
        if "tuning_flops" not in facts and facts.get("encoder") == "tuned":
            # Cards of earlier versions book the tuning of an encoder as its head's.
            tuning = head
            head = 0
        return TeacherCost(int(facts.get("training_flops", 0)), tuning, head)

    @property
    def known(self) -> bool:
        """Return whether the cost of pretraining is known."""
        return self.training > 0

    def charged_to(self, arm: Arm) -> int:
        """Return the FLOPs charged to an arm that uses the teacher, before students share them.

        The encoder is every such arm's; a head on a frozen encoder only theirs who use the head.
        """
        return self.training + self.tuning + self.head * arm.needs_mlm_head

    def check(self, case: str) -> None:
        """Check that what is to be paid is known.

        Args:
            case: way to pay for the teacher, a key of `kdjax.budget.accounting.CASES`.

        Raises:
            InputError: the case charges the teacher's training and nobody knows what it was.
        """
        if "teacher_training" in CASES[case] and not self.known:
            raise InputError(
                f"budget.teacher is {case!r} and what training the teacher cost is not known, "
                "expected teacher.training_flops, a teacher whose card says it, or teacher.train"
            )


def cost_by_recipe(config: Config) -> TeacherCost:
    """Compute the cost of a recipe's teacher, from settings and any card of the source.

    The cost of a teacher that is trained here, and of a head that is fitted, is exact: the number
    of steps times their price.

    Raises:
        InputError: a budget that buys no step.
    """
    teacher = config.teacher
    if teacher.train.budget:
        architecture = zoo.resolve(teacher.architecture)
        batch_shape = batch_shape_of(config, teacher.train.batch_size)
        return TeacherCost(pretraining_flops(architecture, teacher.train, batch_shape, teacher.at))
    # What the recipe states goes before what the card says.
    cost = TeacherCost.from_facts(_card(config))
    if teacher.training_flops:
        cost = replace(cost, training=int(teacher.training_flops))
    # A head that is still to be fitted adds to what the card says.
    if not teacher.head.budget:
        return cost
    if teacher.head.encoder == "tuned":
        return replace(cost, tuning=cost.tuning + fit_flops(config))
    return replace(cost, head=cost.head + fit_flops(config))


def fit_flops(config: Config) -> int:
    """Compute the FLOPs of fitting the recipe's MLM head: its steps times their price.

    Raises:
        InputError: its budget buys no step.
    """
    head = config.teacher.head
    batch_shape = batch_shape_of(config, head.batch_size)
    step_price = price(head_phase(zoo.resolve(config.teacher.architecture), head), batch_shape)
    spans = schedule_phases(
        Budget.flops(head.budget),
        [(1.0, step_price)],
        batch_shape.tokens_per_step,
        setting="teacher.head.budget",
    )
    return spans[0].steps * step_price.total


def _card(config: Config) -> Mapping[str, Any]:
    """Read the card beside the source's weights; empty where either is not on this machine."""
    # A price asks nothing of the Hub: what an earlier command has downloaded is read.
    if hub.is_repository(config.teacher.source):
        cached = hub.cached_directory(hub.parse(config.teacher.source))
        if not cached:
            return {}
        return read_card(cached)
    try:
        directory = source_directories(config)[0].path
    except InputError:
        return {}
    return read_card(directory)
