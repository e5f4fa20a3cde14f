"""What a recipe costs before anything is spent: the price of each arm's steps and how far the
budget reaches."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kdjax.budget.accounting import CASES, Budget
from kdjax.budget.price import PARTS, Price
from kdjax.config import Config, FinetuneConfig, ModelConfig, changed
from kdjax.data.corpus import Corpus, regime_of
from kdjax.dry_run.primary_endpoint import check_primary
from kdjax.dry_run.teacher_cost import cost_by_recipe
from kdjax.errors import InputError
from kdjax.evaluation.mlm_probe import ProbeCost, cost_of
from kdjax.models import FeatureRequest, zoo
from kdjax.teacher_cache.manifest import CacheManifest, record_bytes
from kdjax.training.arm import Arm, resolve
from kdjax.training.fill_teacher_cache import cache_price, passes
from kdjax.training.phase import BatchShape, price
from kdjax.training.teacher_directories import teacher_seeds
from kdjax.training.teacher_source import CachedTeacher, OnlineTeacher

WIDTH = 136
"""Columns that the table of prices takes at least."""


def shape_of(config: Config) -> BatchShape:
    """The shape of a recipe's batch."""
    return BatchShape(config.train.batch_size, config.data.seq_len, config.data.max_predictions)


def arms_of(config: Config) -> dict[str, Arm]:
    """The recipe's arms, made ready from settings alone.

    Raises:
        InputError: no arms, an unknown arm, an objective these models do not allow, sequences
            longer than the models' positions, or stored outputs without mask views.
    """
    if not config.arms:
        raise InputError("arms is empty, expected at least one arm, for instance {scratch: {}}")
    teacher = zoo.resolve(config.teacher.architecture)
    spec = config.student
    arms = {
        name: resolve(name, arm, spec, teacher, config.train.optimizer, config.cache).ramped(
            config.train.batch_ramp
        )
        for name, arm in config.arms.items()
    }
    vocabulary = zoo.resolve(spec).vocab_size
    for name, arm in arms.items():
        if arm.student.vocab_size != vocabulary:
            raise InputError(
                f"arms.{name}.student.vocab_size is {arm.student.vocab_size}, expected "
                "student.vocab_size, "
                f"{vocabulary}: arms read the same text"
            )
        finetuning_of(config, arm)
        if config.data.seq_len > arm.student.max_positions:
            raise InputError(
                f"data.seq_len is {config.data.seq_len}, expected at most student.max_positions, "
                f"{arm.student.max_positions} tokens"
            )
        if arm.uses_teacher and config.data.seq_len > teacher.max_positions:
            raise InputError(
                f"data.seq_len is {config.data.seq_len}, expected at most "
                "teacher.architecture.max_positions, "
                f"{teacher.max_positions} tokens"
            )
        if config.train.grad_accum_steps > 1:
            for phase in arm.phases:
                phase.check_splits()
        if arm.stored and config.budget.kind == "hours":
            raise InputError(
                f"arms.{name}: teacher is 'cached' under budget.hours, expected 'online': the "
                "time that storing took "
                "is not on a run's clock"
            )
        if arm.stored and len(teachers := teacher_seeds(config)) > 1:
            raise InputError(
                f"arms.{name}: teacher is 'cached' and there are {len(teachers)} teachers, of the "
                "seeds "
                f"{list(teachers)}, expected 'online': outputs are stored of one teacher"
            )
        if arm.stored and config.data.mask_copies < 1:
            raise InputError(
                f"arms.{name}: teacher is 'cached' and data.mask_copies 0, expected at least 1: "
                "stored "
                "outputs belong to "
                "fixed masks"
            )
    check_primary(config, arms)
    return arms


def finetuning_of(config: Config, arm: Arm) -> FinetuneConfig:
    """How an arm's students are fine-tuned.

    Raises:
        InputError: a setting that there is not, or that cannot be.
    """
    made: FinetuneConfig = changed(
        config.evaluation.finetune, arm.config.finetune, f"arms.{arm.name}.finetune"
    )
    return made


def probe_shape(config: Config) -> BatchShape:
    """Return the shape of the batches that an MLM probe is fitted on."""
    return BatchShape(
        config.evaluation.mlm_probe.batch_size, config.data.seq_len, config.data.max_predictions
    )


def probe_cost(config: Config, model: ModelConfig) -> ProbeCost | None:
    """Count what an MLM probe of a model costs; None where the recipe has none.

    Raises:
        InputError: the probe has fewer tokens than two of its steps take.
    """
    settings = config.evaluation.mlm_probe
    return cost_of(settings, model, probe_shape(config)) if settings.tokens else None


def probe_charge(config: Config, arm: Arm) -> dict[str, int]:
    """What a run of an arm is charged for its MLM probe, by account: nothing unless the recipe says
    so."""
    cost = probe_cost(config, arm.student)
    if cost is None or not config.evaluation.mlm_probe.charged:
        return {}
    return {"mlm_probe": cost.total}


def stored_by(arms: dict[str, Arm]) -> FeatureRequest:
    """What a study's arms read of stored outputs, all together."""
    asked = FeatureRequest()
    for arm in arms.values():
        asked |= arm.stored
    return asked


def sharing(config: Config, arms: dict[str, Arm]) -> int:
    """Over how many runs the cost of stored outputs is shared."""
    return config.cache.shared_by or len(config.seeds) * sum(
        bool(arm.stored) for arm in arms.values()
    )


def cache_flops(config: Config, request: FeatureRequest, sequences: int) -> int:
    """What storing the teacher's outputs for all views of so many training sequences costs, or has
    cost, in FLOPs."""
    if config.cache.source:
        return int(CacheManifest.read(Path(config.cache.source)).totals["flops"])
    shape = BatchShape(config.cache.batch_size, config.data.seq_len, config.data.max_predictions)
    once = cache_price(zoo.resolve(config.teacher.architecture), request, shape)
    return once * passes(sequences, config.data.mask_copies, shape.batch_size)


def share(flops: int, runs: int) -> int:
    """A run's share, rounded up."""
    return -(-flops // runs)


def prices(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Per arm and phase: FLOPs of a step by part, in all and charged; the steps, tokens and epochs
    the budget buys.

    Tokens are positions of the sequences, padding included, when no prepared corpus tells how full
    they are; epochs are None then. Under a budget of hours all three are None. An arm that reads
    stored outputs also has `cache`: what they cost, and after how many epochs that is less than
    running the teacher in every step. Without a prepared corpus that cost is not known, nor are its
    steps. With an MLM probe there is `mlm_probe`: what it costs a run, and whether that is
    `charged`.
    """
    shape = shape_of(config)
    corpus = _prepared(config)
    arms = arms_of(config)
    budget = Budget.of(config.budget)
    rows = {}
    for name, arm in arms.items():
        found = [price(phase, phase.shape(shape)) for phase in arm.phases]
        cache = _cache(config, arms, arm, found, corpus) if arm.stored else None
        unknown: list[dict[str, Any]] = [dict.fromkeys(("steps", "tokens", "epochs"))] * len(found)
        known = config.budget.kind != "hours" and not (cache and cache["flops"] is None)
        reached = _reach(config, arm, found, cache, corpus) if known else unknown
        probe = probe_cost(config, arm.student)
        probed = (
            {"flops": probe.total, "charged": config.evaluation.mlm_probe.charged}
            if probe
            else None
        )
        rows[name] = [
            {
                **cost.to_json(),
                "charged": budget.charges(cost.parts()),
                "until": phase.until,
                "batch": phase.shape(shape).batch_size,
                **row,
                **({"cache": cache} if cache else {}),
                **({"mlm_probe": probed} if probed else {}),
            }
            for cost, phase, row in zip(found, arm.phases, reached, strict=True)
        ]
    return rows


def _reach(
    config: Config,
    arm: Arm,
    costs: list[Price],
    cache: dict[str, Any] | None,
    corpus: Corpus | None,
) -> list[dict[str, Any]]:
    """Steps, tokens and epochs of each phase."""
    made = []
    upfront = probe_charge(config, arm)
    if cache:
        upfront["teacher_cache"] = cache["share"]
    if arm.needs_teacher and "teacher_training" in CASES[config.budget.teacher]:
        upfront["teacher_training"] = share(teacher_flops(config, arm), config.budget.students)
    for span in arm.schedule_phases(Budget.of(config.budget), costs, shape_of(config), upfront):
        positions = span.steps * span.tokens_per_step
        sequences = positions // config.data.seq_len
        row: dict[str, Any] = {"steps": span.steps, "tokens": positions, "epochs": None}
        if corpus is not None:
            row["epochs"] = sequences / corpus.sequences("train")
            row["tokens"] = round(row["epochs"] * corpus.tokens("train"))
        made.append(row)
    return made


def teacher_flops(config: Config, arm: Arm) -> int:
    """Return what the teacher of an arm cost before, as far as the recipe and the teacher's card
    say it.

    Raises:
        InputError: it is charged and not known, or a budget of the teacher's buys no step.
    """
    cost = cost_by_recipe(config)
    cost.check(config.budget.teacher)
    return cost.charged_to(arm)


def _cache(
    config: Config, arms: dict[str, Arm], arm: Arm, costs: list[Price], corpus: Corpus | None
) -> dict[str, Any]:
    """What stored outputs cost a run, and after how many epochs they are cheaper than the teacher
    in every step."""
    teacher = zoo.resolve(config.teacher.architecture)
    request = stored_by(arms)
    runs = sharing(config, arms)
    shape = BatchShape(config.cache.batch_size, config.data.seq_len, config.data.max_predictions)
    fields = CachedTeacher(teacher, request, config.cache).fields(
        shape.seq_len, shape.max_predictions
    )
    a_sequence = (
        Fraction(cache_price(teacher, request, shape), shape.batch_size)
        * config.data.mask_copies
        / runs
    )
    # A sequence and an epoch, over the arm's phases by their share of the budget
    saved = Fraction(0)
    begin = 0.0
    for phase, cost in zip(arm.phases, costs, strict=True):
        if isinstance(phase.teacher_source, CachedTeacher):
            shape = phase.shape(shape_of(config))
            online = price(
                replace(phase, teacher_source=OnlineTeacher(phase.teacher_source.teacher)), shape
            )
            saved += Fraction(phase.until - begin) * Fraction(
                online.total - cost.total, shape.batch_size
            )
        begin = phase.until
    total = None if corpus is None else cache_flops(config, request, corpus.sequences("train"))
    return {
        "bytes_a_sequence": record_bytes(fields) * config.data.mask_copies,
        "bytes": None
        if corpus is None
        else record_bytes(fields) * config.data.mask_copies * corpus.sequences("train"),
        "flops": total,
        "shared_by": runs,
        "share": None if total is None else share(total, runs),
        "pays_off_after_epochs": float(a_sequence / saved) if saved > 0 else None,
    }


def _prepared(config: Config) -> Corpus | None:
    return (
        regime_of(config.data, Corpus.open(Path(config.data.prepared)))
        if config.data.prepared
        else None
    )


def price_table(config: Config, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the prices as a table: an arm's phase per row."""
    shape = shape_of(config)
    first = next(iter(rows.values()))[0]["total"]
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"FLOPs of a step of {shape.batch_size} x {shape.seq_len} tokens, "
        f"{shape.max_predictions} masked slots a sequence; "
        f"what {Budget.of(config.budget)} buy",
    )
    table.add_column("arm", no_wrap=True)
    for head in (
        *(part.replace("_", " ") for part in PARTS),
        "total",
        f"total / {next(iter(rows))}",
        "steps",
        "tokens",
        "epochs",
    ):
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name, phases in rows.items():
        for n, phase in enumerate(phases, start=1):
            table.add_row(
                name if len(phases) == 1 else f"{name}, phase {n}{_batch(phase, shape)}",
                *(f"{phase[part]:.3g}" for part in PARTS),
                f"{phase['total']:.4g}",
                f"{phase['total'] / first:.3f}",
                _shown(phase["steps"], ",d"),
                _shown(phase["tokens"], ".3g"),
                _shown(phase["epochs"], ".2f"),
            )
    # Where a terminal is narrower, its own wrapping keeps every number whole.
    console = Console(width=max(WIDTH, Console().width))
    console.print(table)
    if config.budget.teacher != "inference" and config.budget.kind == "flops":
        charged = [
            f"{name} {', then '.join(format(p['charged'], '.4g') for p in phases)}"
            for name, phases in rows.items()
        ]
        console.print(
            f"charged a step, of the teacher {config.budget.teacher}: {'; '.join(charged)}",
            soft_wrap=True,
        )
    if config.teacher.train.budget:
        console.print(_teacher_line(config), highlight=False, soft_wrap=True)
    for name, phases in rows.items():
        if cache := phases[0].get("cache"):
            console.print(f"{name}: {_cache_line(cache)}", highlight=False, soft_wrap=True)
    if "mlm_probe" in next(iter(rows.values()))[0]:
        console.print(_probe_line(rows), highlight=False, soft_wrap=True)


def _teacher_line(config: Config) -> str:
    """Return what the teachers that are trained here cost, in a line."""
    training = config.teacher.train
    count = len(config.teacher.train.seeds)
    return (
        f"teacher: {count} trained here, each with {training.budget:.4g} FLOPs; at "
        f"{config.teacher.at:g} of that it "
        f"has cost {cost_by_recipe(config).training:.6g}"
    )


def _batch(phase: dict[str, Any], shape: BatchShape) -> str:
    return "" if phase["batch"] == shape.batch_size else f", batch {phase['batch']}"


def _probe_line(rows: dict[str, list[dict[str, Any]]]) -> str:
    """What an MLM probe costs a run of each arm, and who pays for it."""
    probes = {name: phases[0]["mlm_probe"] for name, phases in rows.items()}
    each = ", ".join(f"{name} {probe['flops']:.4g}" for name, probe in probes.items())
    charged = next(iter(probes.values()))["charged"]
    told = "charged" if charged else "not charged"
    return f"FLOPs of a run's MLM probe, {told} to its budget: {each}"


def _cache_line(cache: dict[str, Any]) -> str:
    epochs = cache["pays_off_after_epochs"]
    known = (
        ""
        if cache["flops"] is None
        else f" {cache['flops']:.4g} FLOPs and {cache['bytes']:.4g} bytes,"
    )
    pays = "never pay off" if epochs is None else f"pay off after {epochs:.2f} epochs"
    return (
        f"stored teacher outputs take{known} {cache['bytes_a_sequence']:,} bytes a sequence; "
        f"shared by {cache['shared_by']} runs they {pays}"
    )


def _shown(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
