"""The steps that a run has in common with one of a smaller budget, which has paid for them."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.budget.ledger import Ledger


@dataclass(frozen=True)
class SharedSteps:
    """The beginning of a run that went on from another run's trunk.

    Its ledger counts them all the same, as that of the same run made alone.

    Attributes:
        study: name of the study whose run of the same arm and seed did them.
        steps: number of steps.
        flops: FLOPs that were spent by then, charged or not; a probe that each run ends with is not
            among them.
        charged: the part of them that the budget pays.
        seconds: wall-clock of them, by kind.
        trunk_sha256: hash of the entry in the other run's journal that has the same account.
    """

    study: str
    steps: int
    flops: int
    charged: int
    seconds: dict[str, float]
    trunk_sha256: str

    @staticmethod
    def from_ledger(study: str, ledger: Ledger, trunk_sha256: str) -> SharedSteps:
        """Return the account of a ledger at the end of a trunk.

        Args:
            study: name of the study whose run it is.
            ledger: the ledger there.
            trunk_sha256: hash of the journal's entry for it.
        """
        spent = {name: flops for name, flops in ledger.spent.items() if name != "mlm_probe"}
        return SharedSteps(
            study,
            ledger.steps,
            sum(spent.values()),
            ledger.budget.charges(spent),
            dict(ledger.seconds),
            trunk_sha256,
        )
