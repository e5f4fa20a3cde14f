"""Statistics of paired arms: intervals over seeds, families of tests, verdicts, power, contrasts.

docs/statistics.md says what each number means, and what was measured of it.
"""

from kdjax.evaluation.statistics.comparison import Comparison, compare_all, compare_pair
from kdjax.evaluation.statistics.contrast import (
    ContrastOutcome,
    contrast_differences,
    difference_of_differences,
    judge_contrast,
)
from kdjax.evaluation.statistics.multiple_testing import Family, adjust_families, holm
from kdjax.evaluation.statistics.outcome import PairedOutcome, PairedTest, judge_tests
from kdjax.evaluation.statistics.paired_mean import Estimate, estimate, interval, smallest_spread
from kdjax.evaluation.statistics.power import power, seeds_needed, smallest_detectable
from kdjax.evaluation.statistics.row_error import crossed_interval
from kdjax.evaluation.statistics.verdict_rule import (
    OTHER_SIDE,
    ArmVerdict,
    Better,
    Verdict,
    decide_verdict,
)

__all__ = [
    "OTHER_SIDE",
    "ArmVerdict",
    "Better",
    "Comparison",
    "ContrastOutcome",
    "Estimate",
    "Family",
    "PairedOutcome",
    "PairedTest",
    "Verdict",
    "adjust_families",
    "compare_all",
    "compare_pair",
    "contrast_differences",
    "crossed_interval",
    "decide_verdict",
    "difference_of_differences",
    "estimate",
    "holm",
    "interval",
    "judge_contrast",
    "judge_tests",
    "power",
    "seeds_needed",
    "smallest_detectable",
    "smallest_spread",
]
