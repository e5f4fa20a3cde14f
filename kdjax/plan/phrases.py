"""Every sentence of a plan's verdicts and pages, as one table of templates with plain fields."""

from __future__ import annotations

from functools import partial

from kdjax.report.phrases import fill

FIT = "Fit of this pilot"
CHECK = "Check on held-out budgets"
LAWS = "Published laws"
"""What a plan's sources are called."""
PHRASES = {
    "plan_no_pilot": (
        "No pilot was fitted, so nothing is forecast from these arms' own runs: this plan has "
        "prices, what budgets buy, and what published laws say."
    ),
    "plan_one_arm": "The fit to this pilot compares nothing: it has one arm.",
    "plan_no_step": (
        "The fit to this pilot compares nothing: no two of these budgets buy every arm a step."
    ),
    "plan_headline": "By the fit to this pilot, on {measures}: {clauses}.",
    "plan_undecided": ("By the fit to this pilot, on {measures}: {arms} INCONCLUSIVE {span}."),
    "plan_extrapolated": "Beyond {flops} FLOPs, the pilot's largest budget, this is extrapolated.",
    "plan_near_unigram": (
        "Near the unigram line at the pilot's largest budget, so that nothing is known of what "
        "comes once they leave it: {arms}."
    ),
    "plan_unusable": "Of {arms} nothing is forecast: values get worse with more tokens.",
    "plan_wins": "{arms} BEATS {others} {span}",
    "plan_ties": "{arms}: TIES {span}",
    "plan_open": "{arms}: INCONCLUSIVE {span}",
    "leader_wins": "{arms}",
    "leader_ties": "TIES: {arms}",
    "leader_open": "INCONCLUSIVE: {arms}",
    "span_one": "at {low} FLOPs",
    "span_whole": "from {low} to {high} FLOPs",
    "span_first": "up to {high} FLOPs",
    "span_last": "from {low} FLOPs on",
    "plan_answer": "{arm} against {other}: {clauses}.",
    "plan_not_told": "{arm} against {other} is INCONCLUSIVE: nothing is forecast of {unusable}.",
    "forecast_BEATS": "forecast BEATS {span}",
    "forecast_LOSES": "forecast LOSES {span}",
    "forecast_TIES": "forecast TIES {span}",
    "forecast_INCONCLUSIVE": "INCONCLUSIVE {span}",
    "plan_difference": "Difference, in {unit}: {differences}.",
    "plan_difference_at": "{difference} at {flops} FLOPs",
    "plan_crossing": (
        "The fitted curves cross at {flops} FLOPs {interval}; beyond, that of {later} is the "
        "better one."
    ),
    "plan_crossing_open": (
        "The fitted curves cross at {flops} FLOPs {interval}; which arm is the better one beyond "
        "cannot be told."
    ),
    "fit_none": "None: plan.pilot names no finished sweep.",
    "fit": (
        "A law for each arm, fitted to {runs} at {budgets} from {low} to {high} FLOPs, {seeds}. "
        "It takes the law for true: of a curve that bends later it knows nothing."
    ),
    "fit_cautions": "Cautions: {cautions}.",
    "check_none": "None without a pilot.",
    "check_few": "None: it takes four budgets. How far the fit can be trusted is not known.",
    "check_widened": (
        "What lay outside is made up for: intervals of {pairs} are so many times wider here as "
        "would have held it, up to {most:.2f} times."
    ),
    "check": (
        "Without the largest budgets ({budgets}), the fit misses the arms' means there by "
        "{missed} {unit}{deviations}; {covered} of {count} lie in its intervals."
    ),
    "check_deviations": " ({deviations} standard deviations over seeds)",
    "check_pairs": (
        "Differences between arms: {count}; in its intervals {covered}, with the right sign "
        "{signs}."
    ),
    "prior": "Decoder language models, next-token loss, extrapolated",
    "prior_loss": "They put the loss of {arm} {clauses}.",
    "prior_below": "below that of {baseline} {where}",
    "prior_not_below": "not below that of {baseline} {where}",
    "prior_lacking": "There is no published law for {arms}.",
    "plan_case_none": "No two of these budgets buy every arm a step.",
    "plan_case_unknown": (
        "Not known: what training the teacher cost is not set (teacher.training_flops)."
    ),
    "text_unlimited": "as much as is asked for, nothing is repeated",
    "text_unknown": "how much there is, a pilot would tell; none of it is taken to be repeated",
    "text_repeated": "{tokens} unique tokens, repeated as long as a budget lasts",
}

say = partial(fill, PHRASES)
"""`say(name, **fields)`: a phrase of a plan, filled in."""
