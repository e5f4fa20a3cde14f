"""Sentences scored one masked token at a time, held against a loop by hand in NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import MinimalPairsConfig, ModelConfig
from kdjax.data.minimal_pairs import PairSet, load
from kdjax.errors import Diverged, InputError
from kdjax.evaluation.minimal_pairs import pairs_flops, score_pairs, token_log_probs
from kdjax.evaluation.pair_scores import judge
from kdjax.models import forward, init
from kdjax.models.features import FeatureRequest
from tests.support import tiny
from tests.support.compilations import compilations
from tests.support.pairs import IDS, make_tokenizer, write_all

BATCH_TOKENS = 64


def peaked(config: ModelConfig = tiny.SHALLOW_STUDENT) -> Any:
    """Return parameters whose distributions are far from even."""
    return jax.tree.map(lambda leaf: 8 * leaf, init(config, 3).params)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PairSet]:
    directory = write_all(tmp_path_factory.mktemp("pairs"))
    tokenizer = make_tokenizer(directory / "tokenizer.json")
    config = MinimalPairsConfig(directory=str(directory))
    return {pairs.name: pairs for pairs in load(config, tokenizer, 24)}


def by_hand(params: Any, tokens: list[str], masked: list[list[int]], scored: list[int]) -> float:
    """Score a sentence without padding: for each scored position, mask and take its log-softmax."""
    ids = np.array([IDS[token] for token in ("[CLS]", *tokens, "[SEP]")], np.int32)
    rows = np.tile(ids, (len(scored), 1))
    for row, places in zip(rows, masked, strict=True):
        row[places] = IDS["[MASK]"]
    logits = np.asarray(every_logit(params, rows), np.float64)
    total = 0.0
    for row, position in zip(logits, scored, strict=True):
        shifted = row[position] - row[position].max()
        total += shifted[ids[position]] - np.log(np.exp(shifted).sum())
    return float(total)


@jax.jit
def every_logit(params: Any, tokens: jax.Array) -> jax.Array | None:
    """Compute the logits of whole sentences at every position."""
    batch = {
        "tokens": tokens,
        "segments": jnp.ones_like(tokens),
        "positions": jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape),
    }
    request = FeatureRequest(token_logits=True)
    return forward(tiny.SHALLOW_STUDENT, params, batch, request).token_logits


def score_of(params: Any, pairs: PairSet, sentence: int, *, later: bool) -> float:
    rows = np.argwhere(pairs.scored)
    values = token_log_probs(
        tiny.SHALLOW_STUDENT, params, pairs, rows, later=later, batch_tokens=BATCH_TOKENS
    )
    return float(values[rows[:, 0] == sentence].sum())


SENTENCE = ["the", "cat", "##s", "sit", "##ting", "."]


def test_pll_is_the_sum_over_tokens_masked_one_at_a_time(sets: dict[str, PairSet]) -> None:
    params = peaked()
    blimp = sets["blimp"]
    expected = by_hand(params, SENTENCE, [[n] for n in range(1, 7)], list(range(1, 7)))
    found = score_of(params, blimp, blimp.good[0], later=False)
    assert found == pytest.approx(expected, rel=1e-5)


def test_within_word_masks_later_tokens_of_the_word_too(sets: dict[str, PairSet]) -> None:
    params = peaked()
    blimp = sets["blimp"]
    masked = [[1], [2, 3], [3], [4, 5], [5], [6]]
    expected = by_hand(params, SENTENCE, masked, list(range(1, 7)))
    found = score_of(params, blimp, blimp.good[0], later=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(found - score_of(params, blimp, blimp.good[0], later=False)) > 0.01


def test_ewok_target_is_scored_given_its_context(sets: dict[str, PairSet]) -> None:
    params = peaked()
    ewok = sets["ewok"]
    sentence = ["the", "cat", "##s", ".", "a", "cat", "."]
    expected = by_hand(params, sentence, [[5], [6], [7]], [5, 6, 7])
    assert score_of(params, ewok, ewok.bad[0], later=False) == pytest.approx(expected, rel=1e-5)


def test_both_ways_together_are_as_each_alone(sets: dict[str, PairSet]) -> None:
    params = peaked()
    blimp = sets["blimp"]
    model = tiny.SHALLOW_STUDENT
    both = score_pairs(model, params, blimp, ("within_word_l2r", "pll"), BATCH_TOKENS)
    assert list(both) == ["within_word_l2r", "pll"]
    for way in both:
        alone = score_pairs(model, params, blimp, (way,), BATCH_TOKENS)
        assert alone[way] == both[way]


def test_accuracy_is_that_of_scores_by_hand(sets: dict[str, PairSet]) -> None:
    params = peaked()
    blimp = sets["blimp"]
    scores = [score_of(params, blimp, n, later=False) for n in range(len(blimp.tokens))]
    outcomes = []
    for good, bad in zip(blimp.good, blimp.bad, strict=True):
        outcomes.append(0.5 if good == bad else float(scores[good] > scores[bad]))
    result = score_pairs(tiny.SHALLOW_STUDENT, params, blimp, ("pll",), BATCH_TOKENS)["pll"]
    assert result.phenomena["number"].accuracy == pytest.approx(np.mean(outcomes[:3]))
    assert result.phenomena["question"].accuracy == outcomes[3]
    # The mean over two phenomena of three pairs and of one.
    assert result.accuracy == pytest.approx((np.mean(outcomes[:3]) + outcomes[3]) / 2)


def test_sentences_of_the_same_tokens_tie(sets: dict[str, PairSet]) -> None:
    blimp = sets["blimp"]
    result = score_pairs(tiny.SHALLOW_STUDENT, peaked(), blimp, ("pll",), BATCH_TOKENS)["pll"]
    assert result.ties == 1
    assert result.phenomena["number"].ties == 1
    assert result.phenomena["question"].ties == 0


@pytest.mark.parametrize("batch_tokens", [1, 32, 1000])
def test_batches_and_padding_change_nothing(sets: dict[str, PairSet], batch_tokens: int) -> None:
    params = peaked()
    blimp = sets["blimp"]
    rows = np.argwhere(blimp.scored)
    # Other tokens in the place of [PAD].
    beyond = np.arange(blimp.tokens.shape[1]) >= blimp.lengths[:, None]
    other = replace(blimp, tokens=np.where(beyond, np.int32(IDS["dog"]), blimp.tokens))
    model = tiny.SHALLOW_STUDENT
    expected = token_log_probs(model, params, blimp, rows, later=True, batch_tokens=BATCH_TOKENS)
    for pairs in (blimp, other):
        found = token_log_probs(model, params, pairs, rows, later=True, batch_tokens=batch_tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_length_is_compiled_once_for_all_models(sets: dict[str, PairSet]) -> None:
    blimp = sets["blimp"]
    model = replace(tiny.SHALLOW_STUDENT, ffn=24)
    score_pairs(model, init(model, 0).params, blimp, ("pll",), 48)
    with compilations() as compiled:
        score_pairs(model, init(model, 1).params, blimp, ("pll", "within_word_l2r"), 48)
    assert not [name for name in compiled if "label_log_probs" in name]


def test_flops_are_those_of_the_batches_that_run(sets: dict[str, PairSet]) -> None:
    blimp = sets["blimp"]
    model = tiny.SHALLOW_STUDENT
    # All sentences have 8 tokens at most: one length, and a row a batch.
    rows = int(blimp.scored.sum())
    one = pairs_flops(model, blimp, ("pll",), 8)
    per_row = one / rows
    assert per_row == one // rows
    # At least the matrix products of the layer, 2 FLOPs a weight and token.
    weights = 4 * model.width**2 + 2 * model.width * model.ffn
    products = 2 * 8 * weights + 2 * model.width * (model.width + model.vocab_size)
    assert products < per_row < 2 * products
    # Of words of several tokens all but the last are scored again.
    again = pairs_flops(model, blimp, ("pll", "within_word_l2r"), 8) / per_row - rows
    goes_on = (blimp.words[:, 1:] == blimp.words[:, :-1]) & (blimp.words[:, 1:] >= 0)
    assert again == goes_on.sum()


def test_model_that_is_not_finite_has_diverged(sets: dict[str, PairSet]) -> None:
    params = jax.tree.map(lambda leaf: np.nan * leaf, peaked())
    with pytest.raises(Diverged, match="minimal pairs blimp, pll: a score is not finite"):
        score_pairs(tiny.SHALLOW_STUDENT, params, sets["blimp"], ("pll",), BATCH_TOKENS)


def test_sentence_beyond_the_positions_is_refused(sets: dict[str, PairSet]) -> None:
    model = replace(tiny.SHALLOW_STUDENT, max_positions=8)
    with pytest.raises(InputError, match="expected at most the model's 8 positions"):
        score_pairs(model, init(model, 0).params, sets["ewok"], ("pll",), BATCH_TOKENS)


def test_judge_counts_wins_ties_and_losses_by_phenomenon() -> None:
    good = np.array([-1.0, -2.0, -3.0, -4.0, -5.0])
    bad = np.array([-2.0, -2.0, -1.0, -5.0, -6.0])
    result = judge(good, bad, np.array([0, 0, 0, 1, 1]), ["a", "b"])
    assert result.phenomena["a"].accuracy == pytest.approx(1.5 / 3)
    assert result.phenomena["a"].ties == 1
    assert result.phenomena["a"].pairs == 3
    assert result.phenomena["b"].accuracy == 1.0
    # A phenomenon counts alike however many pairs it has: not 3.5 / 5.
    assert result.accuracy == pytest.approx(0.75)
