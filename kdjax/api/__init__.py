"""The front door: one arm, its price, a budget, training, evaluation and saving, as functions.

`import kdjax` gives these names without importing JAX; the first use of one imports what it needs.
Whoever wants more control takes the parts below: `kdjax.training.phase.Phase.build_step` gives the
pure step, `kdjax.training.loop.TrainingLoop` is the loop around it.

In the examples `student` and `teacher` are models (`kdjax.models`), `arm` is one made of them,
`data` is prepared text, and `run` a run of the arm on it.
"""

from kdjax.api.arms import ArmWithModels, arm, price
from kdjax.api.budgets import flops, hours, tokens
from kdjax.api.runs import TrainedRun, evaluate, save, train
from kdjax.api.studies import compare
from kdjax.api.text import PreparedText, prepare

__all__ = [
    "ArmWithModels",
    "PreparedText",
    "TrainedRun",
    "arm",
    "compare",
    "evaluate",
    "flops",
    "hours",
    "prepare",
    "price",
    "save",
    "tokens",
    "train",
]
