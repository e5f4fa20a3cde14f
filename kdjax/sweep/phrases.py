"""Every sentence of a sweep's verdicts and pages, as one table of templates with plain fields."""

from __future__ import annotations

from functools import partial

from kdjax.report.phrases import fill

PHRASES = {
    "basis_sweep_none": "No difference has an interval: that takes two seeds that both arms share.",
    "basis_sweep": (
        "Paired {confidence} Student-t intervals over {seeds} seeds, budget by budget; {count} "
        "were looked at, not adjusted for their number: were no two arms different, about "
        "{false:.1f} of them would leave out 0. TIES: the interval lies within ±{margin:g}. BEATS, "
        "or LOSES from the other side: otherwise, it leaves out 0. INCONCLUSIVE: neither."
    ),
    "sweep_nothing": (
        "Nothing was compared with {baseline}: a difference needs two arms with an endpoint in "
        "common."
    ),
    "sweep_no_interval": (
        "This sweep cannot tell the arms apart: an interval needs at least two seeds that both "
        "arms share, and no pair has them."
    ),
    "sweep_undecided": "Against {baseline}, {arms}: INCONCLUSIVE at every budget.",
    "sweep_endpoint": "Against {baseline} on {where}: {clauses}.",
    "sweep_counted": "Against {baseline}, over all budgets, settings and endpoints: {clauses}.",
    "sweep_arm": "{arm} {outcome}",
    "sweep_pair": "{a} against {b}: {outcome}.",
    "sweep_BEATS": "BEATS",
    "sweep_LOSES": "LOSES",
    "sweep_TIES": "TIES",
    "sweep_INCONCLUSIVE": "INCONCLUSIVE",
    "sweep_otherwise": "otherwise INCONCLUSIVE",
    "sweep_count": "{outcome} in {count}",
    "sweep_counts": "{arm} {counts} of {total}",
    "crossed": "; the means cross at {crossings}",
    "open_ends": "[open at both ends]",
    "below": "below {amount}",
    "above": "above {amount}",
    "above_or_never": "above {amount} or never",
    "at_every": "at every budget",
    "from_up": "from {amounts} up",
    "up_to": "up to {amounts}",
    "at": "at {amounts}",
    "sweep_shared": (
        "The same seeds ({seeds}) in every study: arms are compared seed by seed at one budget, "
        "and a seed has one start, data order and masks over arms and budgets. All else is the "
        "recipe's."
    ),
    "sweep_trunk": (
        "One trunk for all budgets: {runs} take {paid} FLOPs, {share} of the {alone} that they "
        "would take each from its first step."
    ),
}

say = partial(fill, PHRASES)
"""`say(name, **fields)`: a phrase of a sweep, filled in."""
