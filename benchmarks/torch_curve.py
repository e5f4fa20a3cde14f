"""Training in PyTorch, step by step, of transformers' `BertForMaskedLM`: MLM, and distillation of
logits and of relations.

Letters in shapes: B batch, L length, H heads, d head width, S slots, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import torch_arms
from benchmarks.cases import Case
from benchmarks.huggingface import masked_lm
from kdjax.config import OptimizerConfig

IGNORED = -100
"""Label of a position that transformers' loss leaves out."""
NO_DECAY = ("bias", "LayerNorm.weight")
"""Ends of the names of parameters that weight decay leaves alone."""


def torch_curve(
    case: Case,
    params: Any,
    teacher: Any,
    batches: Sequence[Mapping[str, np.ndarray]],
    rates: Sequence[float],
    settings: OptimizerConfig,
) -> list[float]:
    """Train by PyTorch, and return the loss of each step.

    Args:
        case: the arm: scratch, logit or minilm.
        params, teacher: kdjax's parameters of both models.
        batches: a batch for each step, one document a row.
        rates: the learning rate of each step.
        settings: settings of AdamW.
    """
    student = masked_lm(case.pair.student, params)
    frozen = masked_lm(case.pair.teacher, teacher).eval().requires_grad_(False)
    loss_of: Callable[..., Tensor] = {
        "scratch": mlm_loss,
        "logit": logit_loss,
        "minilm": functools.partial(minilm_loss, case),
    }[case.arm]
    optimizer = adamw(student, settings)

    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        tensors = {name: torch.tensor(array) for name, array in batch.items()}
        loss = loss_of(student, frozen, tensors)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def adamw(model: Any, settings: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW in which biases and LayerNorms do not decay."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (others if name.endswith(NO_DECAY) else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    betas = (settings.b1, settings.b2)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings.eps)


def inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what transformers' models take of a batch."""
    return {"input_ids": batch["tokens"].long(), "attention_mask": batch["valid"].long()}


def mlm_loss(student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute transformers' own loss: the mean cross-entropy of the masked tokens."""
    labels = torch.full_like(batch["tokens"], IGNORED, dtype=torch.long)
    labels.scatter_(1, batch["slots"].long(), batch["labels"].long())
    return student(**inputs(batch), labels=labels).loss


def logit_loss(student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Add the mean KL(p_t‖p_s) over the masked tokens to their mean cross-entropy."""
    scores = at_slots(student(**inputs(batch)).logits, batch["slots"])
    with torch.no_grad():
        target = at_slots(teacher(**inputs(batch)).logits, batch["slots"])
    log_probs = F.log_softmax(scores, -1)
    divergence = F.kl_div(log_probs, F.log_softmax(target, -1), log_target=True, reduction="sum")
    labels = batch["labels"].long().flatten()
    return F.nll_loss(log_probs, labels) + divergence / len(labels)


def at_slots(logits: Tensor, slots: Tensor) -> Tensor:
    """Return the logits `[B, L, V]` at the masked slots, `[B S, V]`."""
    index = slots.long()[..., None].expand(-1, -1, logits.shape[-1])
    return logits.gather(1, index).flatten(0, 1)


def minilm_loss(case: Case, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum the KL between relations of the last layers' queries, keys and values."""
    features = last_attention(student, batch)
    with torch.no_grad():
        target = last_attention(teacher, batch)
    return torch_arms.minilm(features, target, batch, None, case.pair.relation_heads)


def last_attention(model: Any, batch: Mapping[str, Tensor]) -> torch_arms.Features:
    """Return the last layer's queries, keys and values `[B, H, L, d]`, as its linear layers put
    them out."""
    layer = len(model.bert.encoder.layer)
    attention = model.bert.encoder.layer[-1].attention.self
    features = torch_arms.Features()
    hooks = []
    for name in ("query", "key", "value"):

        def keep(module: Any, args: Any, output: Tensor, name: str = name) -> None:
            heads = output.unflatten(-1, (model.config.num_attention_heads, -1))
            getattr(features, name)[layer] = heads.transpose(1, 2)

        hooks.append(getattr(attention, name).register_forward_hook(keep))
    model.bert(**inputs(batch))
    for hook in hooks:
        hook.remove()
    return features
