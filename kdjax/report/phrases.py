"""Every sentence of a study that pages and terminals show, as one table of templates.

Sweeps and plans have tables of their own (`kdjax/sweep/phrases.py`, `kdjax/plan/phrases.py`).

A sentence reads `arms: what holds`, so that none needs another form for one arm and for several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from kdjax.errors import counted

__all__ = [
    "MEASURES",
    "OWN_TEXT",
    "PHRASES",
    "capitalized",
    "counted",
    "fill",
    "listed",
    "listed_settings",
    "say",
    "sentence",
]

PHRASES = {
    # A study: its verdicts.
    "nothing_compared": "nothing was compared: a verdict needs two arms with an endpoint in common",
    "no_interval": (
        "this study cannot tell the arms apart: an interval needs at least two seeds that both "
        "arms share, and no pair has them"
    ),
    "all_tie": "every pair of arms TIES on every endpoint: no difference is larger than the margin",
    "no_winner": "this study cannot tell which arm is better: {outcomes}",
    "some_outcomes": "{verdict} in {count} of {whole} comparisons",
    "more_outcomes": "{verdict} in {count}",
    "all_outcomes": "{verdict} in all {count} comparisons",
    "only_outcome": "{verdict} in the only comparison",
    "provisional": "Provisional, {seeds} of {planned} planned seeds. {headline}",
    "secondary": "secondary: {relations}",
    "beats": "{arm} BEATS {others}",
    "separated": "{measures}: {relations}",
    "not_separated": "{measures}: no arm BEATS another, {outcomes}",
    "answer": "{arm} against {baseline}: {outcomes}.",
    "outcome": "{outcome} on {measures}",
    "distilling": "Does distilling beat pretraining from scratch?",
    "against": "Which arm is better than {baseline}?",
    # The first lines of a page, and its matrix of arms.
    "lead_nothing": "Nothing was compared: a verdict needs two arms with an endpoint in common.",
    "lead": "{clause}, by {measure}.",
    "lead_others": "{clauses}.",
    "lead_BEATS": "{arms} {each}BEATS {baseline}",
    "lead_LOSES": "{arms} {each}LOSES to {baseline}",
    "lead_TIES": "{arms} {each}TIES with {baseline}",
    "lead_AT LEAST TIES": "{arms} {each}AT LEAST TIES with {baseline}",
    "lead_AT MOST TIES": "{arms} {each}AT MOST TIES with {baseline}",
    "lead_INCONCLUSIVE": "{arms} against {baseline}: INCONCLUSIVE",
    "lead_OPEN": "{arms} against {baseline}: OPEN",
    "lead_NOT LEARNT": "{arms} and {baseline}: NOT LEARNT",
    "lead_each": "each ",
    "lead_many": "{count} of {all} arms",
    "lead_scope": "{budget} a run, {seeds} seeds.",
    "lead_budget": "{budget} a run.",
    "relation": "{arm} against {other}, {label}: {outcome}; {measured}.",
    "relation_measured": "{difference} {unit}, {interval} over {seeds} seeds{p_value}",
    "relation_unmeasured": "no interval with {seeds} shared",
    "relation_cost": "; paid of the teacher: {case}; then at {ratio} the cost",
    # Threats to what the verdicts say.
    "threat_untuned": "The arms share one setting: what suits one objective may not suit another.",
    "threat_tuned_some": "Not tuned: {arms}.",
    "threat_edge": "The best setting lies at an end of the range that was tried: {arms}.",
    "threat_settings": "Settings of their own, besides the objective: {arms}.",
    "threat_memorised": (
        "Passes over the text: {arms}. Beyond {most}, repeated text is worth less and less, and "
        "an arm that reads more of it gains less than its tokens say."
    ),
    "threat_unknown": ("{share} of the tokens are [UNK]: losses are lower than the text deserves."),
    "threat_teacher_head": (
        "The teacher came without an MLM head, tuned for something else; its head was fitted here."
    ),
    "threat_teacher_early": "The teacher was taken at {share} of its training.",
    "threat_teacher_worse": "Lower held-out MLM loss than the teacher in every seed: {arms}.",
    "threat_unlearnt": "No better than the best constant answer or chance: {labels}.",
    "threat_failed": "Fine-tunings that failed: {failed} of {trials}.",
    # A study in progress.
    "progress": "In progress: {finished} of {planned} finished.",
    "progress_no_verdict": (
        "No verdict is told before every seed is there: to look at verdicts early, and to stop "
        "where they please, makes false winners likelier."
    ),
    "progress_arms": "Runs of each arm",
    # A study's tables of scores.
    "scores_title": "{budget} a run",
    "used_title": "What the mean run read",
    "scores_losses": "Held-out loss",
    "scores_pairs": "Minimal pairs, how often the acceptable sentence is the more probable one",
    "scores_tasks": "Tasks: {protocol}",
    "scores_shuffled": "{name}, words shuffled",
    "scores_gap": "{name}, gap closed",
    "scores_explained": "Mean ± standard deviation over seeds.",
    "scores_verdict": "Below it the verdict against {baseline}.",
    "scores_failed": (
        "Failed: fine-tunings no better than the best constant answer on the rows that settings "
        "are chosen on, or diverged."
    ),
    "scores_gap_explained": "Gap closed: from the unigram loss (0%) to both neighbours' (100%).",
    # What the verdicts rest on; the last is a sweep's too.
    "basis_none": (
        "No pair of arms has an interval, which takes two seeds that both share: every verdict is "
        "INCONCLUSIVE, and differences are of a single seed."
    ),
    "basis": (
        "Paired {confidence} Student-t intervals over {seeds} seeds; {count} of them, shown "
        "unadjusted. BEATS, or LOSES from the other side: p, adjusted over all comparisons of the "
        "study, is at most {level}. {families} TIES: otherwise, or even so, two one-sided tests "
        "at {level} show a difference within {margins}. NOT LEARNT: neither arm is better than "
        "the best constant answer or chance. INCONCLUSIVE: none of these."
    ),
    "basis_families": (
        "Confirmatory are {confirmatory} of them, by Holm's method at 4/5 of that: {what}; "
        "secondary are {secondary}, at the rest, or at all of it once every confirmatory one is "
        "decided."
    ),
    "basis_one_family": "They are one family, adjusted by Holm's method.",
    "basis_what_primary": "{label} against {baseline}",
    "basis_what_hypotheses": "the recipe's hypotheses",
    "basis_earlier": (
        "Paired {confidence} Student-t intervals over {seeds} seeds; {count} of them. The verdicts "
        "are those of an earlier kdjax, which adjusted those of the primary endpoint against the "
        "baseline arm alone: `kdjax compare` with the study's recipe makes them anew."
    ),
    "margin_same": "±{margin:g}",
    "margin_scale": "±{margin:g} ({scale})",
    "basis_scope": (
        "The intervals speak of other seeds, not of other test rows, corpora or tunings."
    ),
    # A study's primary endpoint and the recipe's contrasts.
    "primary": (
        "Primary endpoint, {label}, against {baseline} ({tests}, adjusted by Holm's method):"
    ),
    "primary_untested": "{arm} and {baseline}: {seeds} shared, expected at least two for a test.",
    "primary_BEATS": "{arm} BEATS {baseline}",
    "primary_LOSES": "{baseline} BEATS {arm}",
    "primary_TIES": "{arm} TIES with {baseline}: the difference is within the margin",
    "primary_INCONCLUSIVE": "{arm} against {baseline} is INCONCLUSIVE",
    "primary_NOT LEARNT": "{arm} and {baseline} have NOT LEARNT it",
    # Of two lines in a terminal; a page takes the break for a space.
    "primary_test": (
        "{outcome}: {difference} {unit}, {interval}.\n    Over {seeds}{p_value}{reason}."
    ),
    "primary_p": ", adjusted p {p_value}",
    "primary_alone": " (the interval alone leaves out 0; with so many tests that is not enough)",
    "could_see": "; with 80% power these seeds find {detectable} or more",
    "takes_seeds": ", and a difference as observed takes {seeds}",
    "takes_many": ", and a difference as observed takes more than 1,000 seeds",
    "claim": "{kind} {name} ({contrast} is {direction}, {label}): {verdict}.\n    {rest}.",
    "claim_hypothesis": "Hypothesis",
    "claim_contrast": "Contrast",
    "claim_measured": "{difference} {unit}, {interval} over {seeds}{p_value}",
    "claim_untested": "{seeds} shared, expected at least two for a test",
    # Differences of differences between studies.
    "gap_heading": (
        "Does an arm gain more over the baseline arm in {first} than in {second}? Settings that "
        "differ: {settings}."
    ),
    "gap": (
        "{first} against {second}{settings}: {arm} gains more over {baseline} on {label}: "
        "{verdict} ({family}), {rest}."
    ),
    # What a study's reader has to know besides its numbers.
    "chance": (
        "{count} comparisons were made and adjusted together: were no two arms different, at most "
        "{level} of such studies would name a winner anywhere."
    ),
    "few_seeds": (
        "With {seeds} an interval leans on the differences being normal; 5 or more are what a "
        "claim should rest on."
    ),
    "planned_seeds": (
        "{planned} seeds are planned and {seeds} are there: all verdicts are provisional."
    ),
    "looked": (
        "Results were looked at before, with {looks} seeds. Seeds that are added until a verdict "
        "comes out make false winners likelier than {level}, unless their number was planned."
    ),
    "covered": (
        "The intervals cover seeds (start, order, masks). They do not cover the choice of test "
        "rows, corpus, teacher or hyperparameters."
    ),
    "covered_teachers": (
        "The intervals cover seeds (start, order, masks) and, as far as {count} teachers can "
        "show it, the variation of the teacher's training: the student of seed s learns from "
        "teacher s mod {count}, and students of one teacher are counted as if they were "
        "independent. They do not cover the choice of test rows, corpus or hyperparameters."
    ),
    "untuned": "The arms share one setting and were not tuned one by one.",
    "pretrained": (
        "Teachers pretrained from scratch by masked language modelling: {count}; seeds {seeds}; "
        "FLOPs of each {flops}, tokens {tokens}."
    ),
    "own_tokens": (
        "The teacher reads the text by its own tokenizer: hidden states are compared over the "
        "words that both tokenizers have. It is not measured beside the students, whose losses "
        "and tasks are over other tokens."
    ),
    "early_teacher": (
        "Students learn from the teacher at {share} of its budget of {budget} FLOPs, while its "
        "learning rate was still on its way down to 0."
    ),
    "doubtful_text": "The text: {warning}.",
    # Evaluation rows within training text.
    "contamination": "contamination: {found}",
    "contamination_found": ("{found} of {rows} {use} rows of {result} ({share}) stand in {place}"),
    "contamination_none": "no row of {results} stands in the pretraining text",
    "contamination_text": "the pretraining text",
    "contamination_task": "the training rows of {task}",
    "contamination_unchecked": "the pretraining text was not looked at: {reason}",
    "contamination_note": "{found}.",
    "contamination_unchecked_note": (
        "Whether evaluation rows stand in the pretraining text is not known: {reason}."
    ),
    "one_seed": "With one seed there is no interval, and so no verdict.",
    "budget_tokens": (
        "The budget counts the tokens that the student sees, padding included, whatever a step "
        "costs: arms differ in FLOPs and in time."
    ),
    "budget_hours": (
        "The budget counts wall-clock: {clock}. How far it reaches depends on the machine and on "
        "what else ran there; the same run again would not take exactly as many steps."
    ),
    "budget_flops": "FLOPs are XLA's count of the training step.",
    "budget_pays": "The budget pays for {meaning}.",
    "not_in_budget": "Not in the budget: {excluded}.",
    "evaluation": "evaluation",
    "evaluation_but_probe": "evaluation, but for the MLM probe, which is set aside first",
    "head_fitting": (
        "the fitting of the teacher's MLM head, {flops} FLOPs (only arms with a logit term use it)"
    ),
    "encoder_tuning": (
        "the tuning of the teacher's encoder, {flops} FLOPs (every arm with a teacher uses it)"
    ),
    "own_settings": "{arm} has its own {settings}: more than the objective is compared.",
    "own_start": "start (the teacher's layers, copied at no cost)",
    "own_pruned_start": "start (the teacher, pruned; the calibration is on its ledger)",
    "stored": (
        "The teacher's outputs were stored once for {flops:.3g} FLOPs and {bytes:,} bytes, of "
        "which every run that reads them has its share before its first step."
    ),
    "stored_bias": (
        "A position's stored distribution is {total_variation:.3f} off the teacher's in total "
        "variation, and its mean of −log p {entropy_error:+.3f} nats off the teacher's entropy "
        "({entropy:.2f})."
    ),
    "side_by_side": (
        "Up to {count} seeds of an arm trained side by side as one program: a run has an even "
        "share of the time that their steps took, and the memory of a step is that of all of "
        "them."
    ),
    # Labelled tasks.
    "protocol_probe": "{suite} by linear probes on the frozen model, the best layer of each task",
    "protocol_fixed": "{suite} by fine-tuning with one setting for all tasks, {seeds}",
    "protocol_grid": (
        "{suite} by fine-tuning with the best of {settings} for each task ({rates} x {sizes} x "
        "{epochs}), {seeds}"
    ),
    "protocol_few_shot": "{suite} by fine-tuning on {examples}, the mean of {draws}, {seeds}",
    "reported_unseen": (
        "Settings are chosen on {share} of the training rows, which are not trained on; scores "
        "are of the official dev rows."
    ),
    "reported_dev": "Scores are of the official dev rows.",
    "optimistic": (
        "Settings were chosen on the same rows, as papers often do: the scores are optimistic."
    ),
    "left_out_of_mean": "Not in the mean: {tasks}.",
    "trials": (
        "Fine-tunings of all runs: {trials}, of which {chosen} are scored; {failed} of these "
        "failed (no better than the best constant answer on the rows that settings are chosen on, "
        "or diverged), and count in the means."
    ),
    "intermediate": "Started from the encoder tuned on {start}: {tasks}.",
    "not_learnt": (
        "{label}: not shown to be better than {guess}, to within the error of its rows, or every "
        "fine-tuning failed: {arms}. Two such arms have NOT LEARNT it: neither wins, and they do "
        "not tie."
    ),
    "diverged": ("{arm} diverged: {places} ({bad} of {count}). It is compared with no other arm."),
    "above_unigram": (
        "{label}: not below the unigram cross-entropy ({unigram:.3f} nats) under any seed: {arms}. "
        "What such a student knows is which tokens are frequent; a difference between two says "
        "little."
    ),
    "unconverged": (
        "{open} of {count} MLM probes had not converged: the second half of their tokens lowered "
        "the held-out loss by more than {tolerance:g} nats, by {worst:.3f} at most. They say "
        "what can be read with so many tokens, not all that is there; a higher "
        "evaluation.mlm_probe.tokens says more."
    ),
    "text": "{tokens:,} unique tokens in {sequences:,} sequences",
    "regime_limited": (
        "limited: {text}, a seeded subset of {whole:,} tokens, repeated as long as the budget lasts"
    ),
    "regime_unlimited": "unlimited: {text}, none of them seen twice in a run",
    "regime_repeated": "all there is: {text}, repeated",
    "regime_unread": "all there is: {text}, more than any run read",
    "masks_new": "new ones in every epoch, and of every seed",
    "masks_fixed": "fixed: {views} of a sequence, an epoch each, the same for every seed",
    "tuned": (
        "Every arm was tuned alike: {trials} ({sampler}, seed {sampler_seed}) over {space}, each "
        "with {budget} on seeds {seeds}, judged by {endpoint}."
    ),
    "tuned_loss": "the {loss} on held-out sequences that the evaluation does not use",
    "tuned_task": "{endpoint} on the task's dev rows",
    "tuning_cost": "Tuning took {costs}; that is not in the budget.",
    "tuning_arm_cost": "{flops} FLOPs for {arm}",
    "tuning_diverged": "{arm}: {diverged} of {trials} trials diverged.",
    "tuning_edge": (
        "{arm}: the best {setting}, {value}, lies at the {end} end of its range, which may be "
        "too narrow."
    ),
    # What runs may spend, and who pays for the teacher.
    "enforced_flops": (
        "A run may spend {budget}. Charged are {paid}. Tokens and wall-clock are not limited."
    ),
    "enforced_tokens": (
        "A run may see {budget}, padding included. FLOPs (of {paid}) and wall-clock are not "
        "limited."
    ),
    "enforced_hours": (
        "A run may take {budget} of {clock}. FLOPs (of {paid}) and tokens are not limited."
    ),
    "student_steps": "the student's steps",
    "pays_nothing": "the student's steps alone: the teacher and what it says come free",
    "pays_inference": (
        "the student's steps, and the teacher's forward passes or a share of its stored outputs"
    ),
    "pays_training": (
        "the student's steps, and a share of the teacher's training: what it says is stored and "
        "comes free"
    ),
    "pays_both": (
        "the student's steps, the teacher's forward passes or stored outputs, and a share of its "
        "training"
    ),
    "case_as_run": "as run: the same {kind}",
    "case_nothing": "Nothing was compared.",
    "case_same": "Every verdict is as above.",
    "case_BEATS": "{a} BEATS {others} on {measures}",
    "case_TIES": "{a} TIES with {others} on {measures}",
    "case_AT LEAST TIES": "{a} AT LEAST TIES with {others} on {measures}{cost}",
    "case_OPEN": "{a} does better than {others} on {measures}{cost}",
    "case_OPEN_TIES": "{a} TIES with {others} on {measures}{cost}",
    "case_shared": "{a} BEATS {others} on {measures} with at least {students} students",
    "case_cost": ", for {ratio} the cost",
    "group": "",
    "group_shared": "Open, unless enough students share the teacher's training: ",
    "group_never": "Open, however many students share the teacher's training: ",
    "group_open": "Open: ",
    "group_unknown": "Open, as costs are not known: ",
    "terms": (
        "Costs are of these very runs. Assumed: no arm would have done worse for spending more."
    ),
    "term_INCONCLUSIVE": "What is INCONCLUSIVE above is so in every case.",
    "term_NOT LEARNT": "What neither arm has learnt above is so in every case.",
    "term_AT LEAST TIES": "AT LEAST TIES: TIES above, and costs less here.",
    "term_OPEN": (
        "Open: the arm that does better here also costs more, or may, so these runs do not say "
        "which is better at the same cost."
    ),
    "training_unknown": (
        "What training the teacher cost is not known: where it is to be paid for, costs are more "
        "than those shown. teacher.training_flops sets it."
    ),
    "training_cost": (
        "Training the teacher cost {costs}; where it is to be paid for, that is shared by "
        "{students}."
    ),
    "cost_training": "{flops} FLOPs",
    "cost_tuning": "tuning its encoder {flops}",
    "cost_head": "fitting its MLM head, for arms that use it, {flops}",
    "vendor_peak": "{rates} FLOPs a second and device ({sources}); devices of a run: {devices}",
}

MEASURES = {
    "mlm_probe": "MLM probe",
    "probe": "linear probes",
    "fixed": "fine-tuning",
    "grid": "fine-tuning, best of a grid",
    "few_shot": "few-shot fine-tuning",
    "finetune": "fine-tuning",  # of results of earlier versions
    "minimal_pairs": "minimal pairs",
    "mlm": "held-out MLM loss",
}
"""Kind of endpoint -> what pages call it, in the order of sentences."""
OWN_TEXT = "held-out text"
"""What the study's own text is called beside others."""


def fill(templates: Mapping[str, str], name: str, /, **fields: object) -> str:
    """Return a phrase of a table with its fields filled in.

    Args:
        templates: the table: name of a phrase -> its template.
        name: name of the phrase.
        fields: values that the phrase's template names, already formatted as text.
    """
    return templates[name].format(**fields)


say = partial(fill, PHRASES)
"""`say(name, **fields)`: a phrase of a study, filled in."""


def listed(things: Iterable[object]) -> str:
    """Write things as running text: `a`, `a and b`, `a, b and c`."""
    words = list(map(str, things))
    head = ", ".join(words[:-1])
    return " and ".join(filter(None, [head, *words[-1:]]))


def listed_settings(values: Mapping[str, Any], show: Callable[[Any], str] = str) -> str:
    """Write settings as running text: `student.size 3x192, data.seq_len 64`.

    Args:
        values: setting -> its value.
        show: function that writes a value.
    """
    return ", ".join(f"{name} {show(value)}" for name, value in values.items())


def capitalized(text: str) -> str:
    """Return a text that begins a sentence."""
    return text[:1].upper() + text[1:]


def sentence(*parts: str) -> str:
    """Return sentences as running text, without those that are empty."""
    return " ".join(filter(None, parts))
