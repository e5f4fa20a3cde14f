"""Terms between two models that read different tokens: over the words that both have.

B batch, L tokens of the student, W aligned words, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
from typing_extensions import override

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.objectives.base import FeatureNeeds, Params, Term
from kdjax.objectives.hidden import HiddenMseBui2024
from kdjax.objectives.objective import Objective
from kdjax.objectives.reductions import word_means

_OF_TOKENS = "attention is between tokens, and a word's is not that of its tokens"
_SHORTER = (
    "a relation is a product of tokens' vectors, and means of several tokens are shorter, so that "
    "the student would learn how the tokenizers split words"
)
_OTHER_ENTRIES = "they are over the teacher's vocabulary, which is not the student's"
_WHY_NOT = {
    "scores": _OF_TOKENS,
    "query": _SHORTER,
    "key": _SHORTER,
    "value": _SHORTER,
    "logits": _OTHER_ENTRIES,
    "token_logits": _OTHER_ENTRIES,
}
"""Feature -> why it is not compared over words."""
_EXPECTED = "a term over hidden states: hidden_mse, cosine, hidden_cls or hidden_concat"


@dataclass(frozen=True)
class OverWords(Term):
    """A term over hidden states whose positions are aligned words (`kdjax.data.aligned_words`).

    The student's states are means over the tokens of a word, and so are the teacher's, which come
    as such (`kdjax.training.teacher.source`). To the term each word is one valid position of its
    segment, however many tokens it has on either side.

    Attributes:
        term: term that compares the means.
    """

    term: Term

    @property
    def name(self) -> str:
        """Return the term's name in recipes."""
        return self.term.name

    @property
    def needs_teacher(self) -> bool:
        """Return True: it stands between two models."""
        return True

    @property
    def temperature(self) -> float | Schedule:
        """Return that of the term."""
        return self.term.temperature

    @property
    def scheduled(self) -> bool:
        """Return whether an option of the term changes over the budget."""
        return self.term.scheduled

    def needs(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None
    ) -> FeatureNeeds:
        """Return the features that the term uses.

        Raises:
            InputError: it looks at more than hidden states, or at padding, or cannot be computed
                between these two models.
        """
        self._check_kind(student_config)
        needs = self.term.needs(student_config, teacher_config)
        self._check(needs.student)
        self._check(needs.teacher)
        return needs

    def _check_kind(self, student_config: ModelConfig) -> None:
        """Refuse a term for what it looks at before it is refused for what these models are.

        Raises:
            InputError: as `needs`.
        """
        if isinstance(self.term, HiddenMseBui2024):
            raise InputError(
                f"{self.name}: variant bui2024 compares padding, too, which is no word under "
                "data.teacher_tokenizer, expected the variant original"
            )
        # Two equal models have nothing else that could be in the way.
        try:
            needs = self.term.needs(student_config, student_config)
        except InputError:
            return
        self._check(needs.teacher)

    def _check(self, request: FeatureRequest) -> None:
        """Refuse a request for more than hidden states.

        Raises:
            InputError: as `needs`.
        """
        for kind, why in _WHY_NOT.items():
            if getattr(request, kind):
                raise InputError(
                    f"{self.name}: asks for {kind.replace('_', ' ')} under data.teacher_tokenizer, "
                    f"expected {_EXPECTED}: {why}"
                )

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return the term's own trainable parameters."""
        return self.term.init(student_config, teacher_config, seed)

    def normalizer(self, batch: Batch) -> jax.Array | None:
        """Return the number that the term's loss is divided by, with words for positions."""
        return self.term.normalizer(_of_words(batch))

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        # A row has no more words than the student has tokens.
        words = batch["words"]
        hidden = {}
        for layer, x in student.hidden.items():
            hidden[layer] = word_means(x, words, words.shape[1])
        return self.term(replace(student, hidden=hidden), teacher, _of_words(batch), params)


def over_words(objective: Objective) -> Objective:
    """Return an objective whose terms between the two models are over aligned words.

    Args:
        objective: objective of a phase; its terms of the student alone stay as they are.
    """
    terms = []
    for key, weight, term in objective.terms:
        if term.needs_teacher:
            term = OverWords(term)  # noqa: PLW2901
        terms.append((key, weight, term))
    return Objective(tuple(terms))


def _of_words(batch: Batch) -> Batch:
    """Return a batch whose valid positions are the words, `[B, W]`."""
    segments = batch["word_segments"]
    return {**batch, "valid": segments > 0, "segments": segments}
