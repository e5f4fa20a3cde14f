"""Model cards of teachers that are fitted or trained here: README.md beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdjax.data.corpus import Corpus
from kdjax.data.prepare.ngram_losses import ngram_losses

_FITTED = {
    "frozen": ("The encoder is unchanged; only the head was trained.", "the head", "head_flops"),
    "tuned": (
        "Encoder and head were trained together.",
        "encoder and head together",
        "tuning_flops",
    ),
}
"""How the head was fitted -> what was done, what the FLOPs were spent on, and their account."""


def fitted_card(facts: Mapping[str, Any], corpus: Corpus) -> str:
    """Return the model card of an encoder with a fitted MLM head.

    Args:
        facts: facts of the teacher.
        corpus: the text it was fitted on, whose own cross-entropies stand beside its loss.
    """
    encoder, fitted, account = _FITTED[facts["encoder"]]
    training = f"{facts['training_flops']:.4g} FLOPs" if facts["training_flops"] else "not known"
    spent = f"{facts[account]:.4g} FLOPs"
    return f"""# Teacher: {facts["source"]} with an MLM head

{encoder}

| | |
|---|---|
| encoder | {facts["source"]} |
| spent on training it before | {training} |
| spent on {fitted} | {spent}, {facts["head_steps"]:,} steps, {facts["head_tokens"]:,} tokens |
| held-out MLM loss | {facts["mlm_loss"]:.4f} nats |
| held-out MLM accuracy | {facts["mlm_accuracy"]:.4f} |
| the text by counts | {ngram_losses(corpus).in_words(4)} nats |
| fitted on | the training split of corpus {corpus.digest[:16]} |

FLOPs are XLA's count of the steps that fitted it.
"""


def trained_card(facts: Mapping[str, Any], corpus: Corpus) -> str:
    """Return the model card of a teacher that was trained from scratch.

    Args:
        facts: facts of the teacher.
        corpus: the text it was trained on, whose own cross-entropies stand beside its loss.
    """
    model = facts["architecture"]
    size = f"{model['layers']} layers, width {model['width']}, {model['heads']} heads"
    training = facts["pretraining"]
    share = training["at"]
    corpus_name = f"corpus {training['corpus'][:16]}, {training['corpus_tokens']:,} tokens"
    steps = f"{training['steps']:,} steps of {training['step_flops']:.6g}"
    tokens = f"{training['tokens']:,}, {training['unique_tokens']:,} of them unique"
    # A corpus of an earlier version has no count of words.
    words = f"{training['words']:,}" if "words" in training else "not counted"
    budget = f"{training['budget']:.4g} FLOPs, of which this checkpoint has used {share:.4g}"
    remarks = f"{facts['note']}\n\n" if facts["note"] else ""
    if share < 1:
        remarks += (
            "It is an intermediate checkpoint: warm-up and decay of the learning rate follow the "
            "whole budget, so its\n"
            "learning rate was still on its way down to 0.\n\n"
        )
    return f"""# Teacher: {size}

A masked language model that kdjax pretrained from scratch, seed {training["seed"]}, as it was \
after {share:.4g} of its
training budget.

{remarks}| | |
|---|---|
| architecture | {size}, feed-forward {model["ffn"]} |
| vocabulary | {model["vocab_size"]:,} entries |
| training budget | {budget} |
| spent on training it | {facts["training_flops"]:.6g} FLOPs: {steps} |
| batch | {training["batch_size"]:,} sequences |
| tokens seen | {tokens} |
| words seen | {words} |
| epochs | {training["epochs"]:.2f} |
| seed | {training["seed"]} |
| trained on | the training split of {corpus_name} |
| held-out MLM loss | {facts["mlm_loss"]:.4f} nats |
| held-out MLM accuracy | {facts["mlm_accuracy"]:.4f} |
| the text by counts | {ngram_losses(corpus).in_words(4)} nats |
| parameters | SHA-256 {facts["params_sha256"]} |

FLOPs are XLA's count of the training steps.
"""
