"""The features of a forward pass, and requests for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import jax

Batch = Mapping[str, jax.Array]
"""The arrays of a batch, all of them or those that a function names. B batch, L length, S slots.

- `tokens`: int32 `[B, L]`, masked tokens replaced.
- `segments`: int32 `[B, L]`: which text of a packed sequence a token is of, from 1; 0 is padding.
- `positions`: int32 `[B, L]`, position within the segment, from 0.
- `types`: int32 `[B, L]`, token types; without them all are 0.
- `valid`: bool `[B, L]`, False at padding.
- `slots`: int32 `[B, S]`, where the masked tokens are.
- `labels`: int32 `[B, S]`, the tokens that were masked.
- `label_weights`: float32 `[B, S]`, 1 at a masked token and 0 at an unused slot.
- `budget_fraction`: float32, the share of the arm's budget spent before the step; an objective puts
  it there for its terms, whose schedules go by it.

Where the teacher reads tokens of its own, at most L aligned words stand between the two:

- `words`: int32 `[B, L]`: aligned word that a token is of, from 1; 0 is padding.
- `word_segments`: int32 `[B, L]`: at k the segment of aligned word k + 1; 0: there is none.
- `teacher.tokens`, `teacher.segments`, `teacher.positions`, `teacher.words`: int32 `[B, L_t]`, as
  those without `teacher.`, of the teacher's own tokens.
"""

ATTENTION_FEATURES = ("scores", "query", "key", "value")
"""The features that a layer's attention computes on its way."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Features:
    """The features a forward pass computed, float32; anything not asked for is empty or None.

    Layer 1 is the first layer. B batch, H heads, L length, d head width, D width, S slots, V
    vocabulary.

    Attributes:
        scores: layer -> `[B, H, L, L]` attention scores: scaled by 1/sqrt(d), before the mask and
            the softmax.
        query: layer -> `[B, H, L, d]`; with rotary positions after the rotation, as scores compare
            them.
        key: layer -> `[B, H, L, d]`, not transposed; after the rotation likewise.
        value: layer -> `[B, H, L, d]`.
        hidden: layer -> `[B, L, D]`; 0 is the embedding output, the last is what the MLM head
            reads.
        logits: `[B, S, V]` MLM logits at the masked slots.
        token_logits: `[B, L, V]` MLM logits at every position.
    """

    scores: dict[int, jax.Array] = field(default_factory=dict)
    query: dict[int, jax.Array] = field(default_factory=dict)
    key: dict[int, jax.Array] = field(default_factory=dict)
    value: dict[int, jax.Array] = field(default_factory=dict)
    hidden: dict[int, jax.Array] = field(default_factory=dict)
    logits: jax.Array | None = None
    token_logits: jax.Array | None = None


@dataclass(frozen=True)
class FeatureRequest:
    """Features for a forward pass to compute. Requests join with `|`.

    Attributes:
        scores, query, key, value: layers, 1 is the first.
        hidden: layers, 0 is the embedding output.
        logits: whether the MLM head runs at the masked slots.
        token_logits: whether the MLM head runs at every position.
    """

    scores: frozenset[int] = frozenset()
    query: frozenset[int] = frozenset()
    key: frozenset[int] = frozenset()
    value: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()
    logits: bool = False
    token_logits: bool = False

    def __or__(self, other: FeatureRequest) -> FeatureRequest:
        joined = {f.name: getattr(self, f.name) | getattr(other, f.name) for f in fields(self)}
        return FeatureRequest(**joined)

    def __bool__(self) -> bool:
        return self != FeatureRequest()

    @property
    def head(self) -> bool:
        """Return whether the MLM head runs at all."""
        return self.logits or self.token_logits

    @property
    def depth(self) -> int:
        """Return the highest layer named; logits need all layers besides."""
        layers = self.hidden.union(self.scores, self.query, self.key, self.value)
        return max(layers, default=0)

    def attention(self, layer: int) -> frozenset[str]:
        """Return those of `scores`, `query`, `key`, `value` that are requested of `layer`."""
        return frozenset(name for name in ATTENTION_FEATURES if layer in getattr(self, name))

    def ranges(self, layers: int) -> list[range]:
        """Return layers 1 to `layers` in runs of consecutive ones of which no feature is requested;
        every other one by itself."""
        featureless = [not self.attention(n) and n not in self.hidden for n in range(layers + 1)]
        ranges: list[range] = []
        for n in range(1, layers + 1):
            if ranges and featureless[n - 1] and featureless[n]:
                ranges[-1] = range(ranges[-1].start, n + 1)
            else:
                ranges.append(range(n, n + 1))
        return ranges
