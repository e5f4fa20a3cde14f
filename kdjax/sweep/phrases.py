"""Every sentence of a sweep's verdicts and pages, as one table of templates with plain fields."""

from __future__ import annotations

from functools import partial

from kdjax.report.phrases import fill

PHRASES = {
    "basis_sweep_none": "No difference has an interval: that takes two seeds that both arms share.",
    "basis_sweep": (
        "Paired {confidence} Student-t intervals over {seeds} seeds, budget by budget; {count} of "
        "them, shown unadjusted. BEATS, or LOSES from the other side: p, adjusted over all "
        "comparisons of the sweep, is at most {level}; those of the primary endpoint with the "
        "baseline arm are confirmatory, and the others secondary. TIES: otherwise, or even so, two "
        "one-sided tests show a difference within {margins}. NOT LEARNT: neither arm is better "
        "than the best constant answer or chance. INCONCLUSIVE: none of these."
    ),
    "basis_sweep_earlier": (
        "Paired {confidence} Student-t intervals over {seeds} seeds, budget by budget; {count} of "
        "them, not adjusted for their number (level {level}, margins {margins}): the verdicts are "
        "those of an earlier kdjax. `kdjax sweep` with the sweep's recipe makes them anew."
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
    "sweep_NOT LEARNT": "NOT LEARNT",
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
