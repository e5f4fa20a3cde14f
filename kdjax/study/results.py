"""A study's results: what its runs measured, joined and judged."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any, Literal

import jax

from kdjax.budget.accounting import Budget
from kdjax.config import Config, ModelConfig, PhaseConfig, TermConfig, plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.data.manifest import SPLITS, Manifest
from kdjax.data.minimal_pairs import PairSet
from kdjax.data.prepare.reference_losses import ReferenceLosses, reference_losses
from kdjax.data.tasks.labelled import Task
from kdjax.errors import InputError
from kdjax.evaluation.pair_scores import CHANCE
from kdjax.evaluation.statistics import compare_all, expected_false
from kdjax.models import abstract_params, count_params
from kdjax.report import notes
from kdjax.report.phrases import say
from kdjax.results.arms import ArmPhase, ArmResult, StudentFacts, first_without_teacher
from kdjax.results.runs import Reference, RunResult
from kdjax.results.study import Results
from kdjax.results.teacher import StoredOutputs, TeacherFacts
from kdjax.results.text import CorpusFacts, CountedLosses, TextFacts, TokenRates, WholeText
from kdjax.results.tuning import Tuning
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from kdjax.storage.files import digest
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study import differences, primary, tuned
from kdjax.study.cases import cases
from kdjax.study.corpus import text_warnings
from kdjax.study.machine import versions
from kdjax.study.manifest import Cost
from kdjax.study.run_backup import RESULT
from kdjax.study.study import Study
from kdjax.teacher_cache.manifest import CacheManifest, bias
from kdjax.training.arm import Arm


def collect(
    study: Study,
    runs: Sequence[RunResult],
    references: Sequence[Reference],
    wall_clock: Mapping[str, float],
) -> Results:
    """Join what a study's runs measured, and judge every pair of arms on every endpoint.

    Args:
        study: the study.
        runs: all runs.
        references: all models that were not trained here.
        wall_clock: seconds by kind, of the study's commands.
    """
    config = study.plan.config
    shared = study.artifacts
    corpus = corpus_facts(config, shared.corpus, reference_losses(shared.corpus), shared.texts)
    endpoints = _endpoints(config, corpus, shared.tasks, shared.minimal_pairs, study.plan.arms)
    # A result that was read may lack a value, which every comparison below needs.
    for row, endpoint in itertools.product(runs, endpoints):
        if row.diverged is None and row.arm in endpoint.arms and endpoint.name not in row.metrics:
            raise InputError(
                f"{study.plan.run_dir(row.arm, row.seed) / RESULT}: metrics.{endpoint.name} is "
                "missing, expected a number"
            )
    return judge(
        config,
        study.plan.arms,
        study.costs,
        runs,
        references,
        corpus=corpus,
        endpoints=endpoints,
        teacher=teacher_facts([teacher.facts for teacher in shared.teachers]),
        cache=shared.cache.manifest if shared.cache else None,
        tuning=tuned.tuning_of(config),
        wall_clock=wall_clock,
    )


def judge(
    config: Config,
    arms: Mapping[str, Arm],
    costs: Mapping[str, Cost],
    runs: Sequence[RunResult],
    references: Sequence[Reference],
    *,
    corpus: CorpusFacts,
    endpoints: Sequence[MeasuredEndpoint],
    teacher: TeacherFacts | None,
    cache: CacheManifest | None,
    tuning: Tuning | None,
    wall_clock: Mapping[str, float],
) -> Results:
    """Join what was measured with its verdicts: the content of results.json.

    Apart from versions, all of it follows from the recipe, the runs and the facts given here.

    Args:
        config: the recipe.
        arms: name -> arm of the recipe, made ready.
        costs: arm -> cost of its runs.
        runs: all runs.
        references: all models that were not trained here.
        corpus: facts of the text.
        endpoints: measures of the models.
        teacher: facts of the teacher, or of all together; None where no arm needs one.
        cache: manifest of stored teacher outputs; None where no arm reads them.
        tuning: tuning of the arms; None where they were not tuned.
        wall_clock: seconds by kind, of the study's commands.
    """
    values = plain(to_dict(config))
    budget = Budget.of(config.budget)
    arm_results = {name: _arm_result(arm, costs[name], runs) for name, arm in arms.items()}
    baseline = first_without_teacher({name: arm.needs_teacher for name, arm in arms.items()})

    # Holm's adjustment can take back a win on the primary endpoint, and on no other.
    tests = primary.primary_endpoint(config.evaluation, endpoints, baseline, runs)
    verdicts: list[PairVerdict] = []
    for endpoint in endpoints:
        verdicts += primary.after_holm(_verdicts(config, endpoint, runs), tests)

    # Costs under each way to pay for the teacher are in FLOPs.
    enforced = budget.teacher if budget.kind == "flops" else None

    # Notes that hold for every study come first, then those that this one's runs give rise to.
    sentences = notes.general(
        config,
        len(verdicts),
        expected_false(len(verdicts), config.evaluation.confidence),
        teacher,
    )
    if tuning:
        sentences += tuned.notes(tuning)
    sentences += [
        *(say("doubtful_text", warning=warning) for warning in corpus.warnings or ()),
        *notes.of_arms(arm_results, cache),
        *notes.side_by_side(runs),
        *notes.divergences(runs),
        *notes.at_baseline(endpoints, runs),
        *notes.no_better_than_counts(endpoints, runs, corpus.reference_losses),
        *notes.unconverged(runs, references),
    ]
    return Results(
        **versions(),
        wall_clock=dict(wall_clock),
        config=values,
        config_digest=digest(values),
        budget=budget,
        corpus=corpus,
        teacher=teacher,
        cache=_stored_outputs(cache),
        student=_student_facts(next(iter(arms.values())).student),
        arms=arm_results,
        baseline_arm=baseline,
        differences=differences.rows(arm_results),
        same=tuple(differences.shared(config, arms)),
        endpoints=tuple(endpoints),
        runs=tuple(runs),
        references=tuple(references),
        verdicts=tuple(verdicts),
        primary=tests,
        tuning=tuning,
        cases=cases(arm_results, runs, verdicts, teacher, enforced, config.budget.students),
        notes=tuple(sentences),
    )


def teacher_facts(teachers: Sequence[Mapping[str, Any]]) -> TeacherFacts | None:
    """Gather the facts of a study's teacher, or of its teachers together.

    Args:
        teachers: facts of each, in the order in which students take them; empty where no arm
            needs one.

    Returns:
        The facts of the only teacher. Of several, those of the first, with the means of `mlm_loss`
        and `mlm_accuracy`, and in `teachers` the facts of each.
    """
    if not teachers:
        return None
    each = tuple(from_plain(TeacherFacts, dict(facts), "teacher.json:") for facts in teachers)
    first = each[0]
    if len(each) == 1:
        return first
    # Of several, no one's weights stand for all.
    others = {name: value for name, value in first.others.items() if name != "params_sha256"}
    return replace(
        first,
        mlm_loss=fmean(facts["mlm_loss"] for facts in teachers),
        mlm_accuracy=fmean(facts["mlm_accuracy"] for facts in teachers),
        teachers=each,
        others=others,
    )


def corpus_facts(
    config: Config, corpus: Corpus, losses: ReferenceLosses, texts: Mapping[str, Corpus]
) -> CorpusFacts:
    """Gather the facts of a study's text.

    Args:
        config: the recipe.
        corpus: the text that its runs see.
        losses: the text's own cross-entropies.
        texts: name -> held-out text from elsewhere.
    """
    manifest = corpus.manifest
    return CorpusFacts(
        regime=config.data.regime,
        documents=manifest.documents,
        sequences={split: corpus.sequences(split) for split in SPLITS},
        tokens={split: corpus.tokens(split) for split in SPLITS},
        whole=WholeText(manifest.sequences, manifest.tokens),
        digest=corpus.digest,
        length=manifest.length,
        views=config.data.mask_copies,
        vocabulary=manifest.vocab_size,
        tokenizer=manifest.tokenizer_sha256,
        reference_losses=CountedLosses(**losses.figures()),
        token_rates=_token_rates(manifest),
        texts={name: _text_facts(text) for name, text in texts.items()},
        warnings=tuple(text_warnings(corpus, losses)) or None,
    )


def _token_rates(manifest: Manifest) -> TokenRates | None:
    """Gather how the tokenizer takes the text; None in corpora of earlier versions."""
    if manifest.text is None:
        return None
    by_word, by_character = manifest.text.rates(manifest.text_tokens)
    return TokenRates(manifest.unknown, by_word, by_character)


def _text_facts(text: Corpus) -> TextFacts:
    """Gather the facts of a held-out text from elsewhere."""
    return TextFacts(
        documents=text.manifest.documents["validation"],
        sequences=text.sequences("validation"),
        tokens=text.tokens("validation"),
        digest=text.digest,
    )


def _student_facts(model: ModelConfig) -> StudentFacts:
    """Return a student's size; its parameters include its MLM head's."""
    count = count_params(abstract_params(model))
    return StudentFacts(
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        ffn=model.ffn,
        vocab_size=model.vocab_size,
        parameters=count.embeddings + count.others,
        parameters_without_embeddings=count.others,
    )


def _arm_result(arm: Arm, cost: Cost, runs: Sequence[RunResult]) -> ArmResult:
    """Return an arm as it ran; under a budget of hours, as its first run did."""
    # Only a clock makes runs of an arm differ in steps, and a loss that is not finite.
    of_arm = [run for run in runs if run.arm == arm.name]
    first = next((run for run in of_arm if run.diverged is None), of_arm[0])
    phases = [
        ArmPhase(_plain_terms(phase), phase.until, price, run_phase.batch, run_phase.steps)
        for phase, price, run_phase in zip(
            arm.config.phases, cost.prices, first.phases, strict=True
        )
    ]
    student = _student_facts(arm.student)
    outputs: Literal["cached", "online"] | None = None
    if arm.uses_teacher:
        outputs = "cached" if arm.stored_features else "online"
    return ArmResult(
        phases=tuple(phases),
        start=arm.start,
        student=to_plain(arm.config.student),
        optimizer=to_plain(arm.config.optimizer),
        finetune=to_plain(arm.config.finetune),
        teacher=outputs,
        steps=first.steps,
        spent=first.spent,
        tokens=first.tokens_seen,
        epochs=first.epochs,
        words=first.words_seen,
        parameters=student.parameters,
        parameters_without_embeddings=student.parameters_without_embeddings,
        trains_mlm_head=arm.trains_mlm_head,
        needs_teacher=arm.needs_teacher,
        untrained=tuple(_untrained(arm.trained["model"])),
    )


def _plain_terms(phase: PhaseConfig) -> tuple[TermConfig, ...]:
    """Return a phase's terms with their options as JSON has them, schedules among them too."""
    return tuple(replace(term, options=to_plain(term.options)) for term in phase.terms)


def _stored_outputs(cache: CacheManifest | None) -> StoredOutputs | None:
    """Return how teacher outputs are stored, what they cost, and how biased they are."""
    if cache is None:
        return None
    return StoredOutputs(
        views=cache.views,
        sequences=cache.sequences,
        flops=int(cache.totals["flops"]),
        bytes=cache.bytes,
        bias=bias(cache),
        settings=cache.identity["cache"],
    )


def _untrained(tree: Any, name: str = "") -> list[str]:
    """Return the largest parts of a model that get no gradient, by dotted name."""
    # A part with no gradient anywhere is named as a whole; its own parts are not.
    if not any(jax.tree.leaves(tree)):
        return [name]
    if not isinstance(tree, dict):
        return []
    parts: list[str] = []
    for key, branch in tree.items():
        parts += _untrained(branch, f"{name}.{key}".lstrip("."))
    return parts


def _endpoints(
    config: Config,
    corpus: CorpusFacts,
    tasks: Sequence[Task],
    minimal_pairs: Sequence[PairSet],
    arms: Mapping[str, Arm],
) -> list[MeasuredEndpoint]:
    """Return what models are measured by: losses on held-out text, minimal pairs, then tasks."""
    with_head = tuple(name for name, arm in arms.items() if arm.trains_mlm_head)
    endpoints = _losses(config, corpus, "mlm", "mlm_loss", "Held-out MLM loss", with_head)
    if config.evaluation.mlm_probe.tokens:
        label = "MLM probe, held-out loss"
        endpoints += _losses(config, corpus, "mlm_probe", "mlm_probe", label, tuple(arms))

    endpoints += [_pairs(pairs, with_head) for pairs in minimal_pairs]

    # Every arm has hidden states, so scores on tasks exist for all.
    labels = {"probe": "linear probe, best layer"}
    if config.evaluation.finetune.steps:
        labels["finetune"] = "fine-tuned"
    for kind, label in labels.items():
        endpoints += [_score(kind, label, task, tuple(arms)) for task in tasks]
    return endpoints


def _pairs(pairs: PairSet, with_head: tuple[str, ...]) -> MeasuredEndpoint:
    """Return the accuracy on a set of minimal pairs, which needs a trained MLM head."""
    return MeasuredEndpoint(
        name=f"minimal_pairs.{pairs.name}",
        label=f"{pairs.name}, minimal pairs",
        unit="accuracy",
        better="higher",
        kind="minimal_pairs",
        arms=with_head,
        rows=len(pairs),
        baseline=CHANCE,
    )


def _score(kind: str, label: str, task: Task, arms: tuple[str, ...]) -> MeasuredEndpoint:
    """Return the score on a task's test rows, by a linear probe or by fine-tuning."""
    return MeasuredEndpoint(
        name=f"{kind}.{task.name}",
        label=f"{task.name}, {label}",
        unit="Pearson's r" if task.regression else "accuracy",
        better="higher",
        kind=kind,
        arms=arms,
        rows=len(task.test),
        baseline=task.baseline,
    )


def _losses(
    config: Config, corpus: CorpusFacts, kind: str, name: str, label: str, arms: tuple[str, ...]
) -> list[MeasuredEndpoint]:
    """Return a held-out loss on the study's own text and on each of `evaluation.texts`."""
    # A text may have fewer sequences than the recipe asks for.
    limit = config.evaluation.mlm_sequences
    sequences = min(limit, corpus.sequences["validation"])
    on_own_text = MeasuredEndpoint(name, label, "nats", "lower", kind, arms, sequences, None)
    endpoints = [on_own_text]
    for text, facts in corpus.texts.items():
        endpoints.append(
            replace(
                on_own_text,
                name=f"{name}.{text}",
                label=f"{label}, {text}",
                rows=min(limit, facts.sequences),
            )
        )
    return endpoints


def _verdicts(
    config: Config, endpoint: MeasuredEndpoint, runs: Sequence[RunResult]
) -> list[PairVerdict]:
    """Return an endpoint's verdict on every pair of the arms for which it means something."""
    comparisons = compare_all(
        primary.values_by_arm(endpoint, runs),
        confidence=config.evaluation.confidence,
        margin=config.evaluation.margin,
        better=endpoint.better,
    )
    return [PairVerdict(endpoint.name, **asdict(comparison)) for comparison in comparisons]
