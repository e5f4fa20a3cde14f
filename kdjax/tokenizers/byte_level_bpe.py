"""Train a byte-level BPE tokenizer, RoBERTa's kind (Radford et al. 2019, section 2.2).

Every byte has an entry, so that no text is unknown. A space belongs to the word behind it, and each
text is read as if a space stood before it: a word has the same tokens wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from kdjax.config import TokenizerConfig

SPECIAL = ("<s>", "<pad>", "</s>", "<mask>")
"""The special tokens, in the order of their ids: RoBERTa's, whose padding has id 1."""


def train(
    config: TokenizerConfig, texts: Callable[[], Iterable[str]]
) -> tuple[tokenizers.Tokenizer, float]:
    """Train a cased byte-level BPE tokenizer with GPT-2's word splitter.

    Entries are, in this order: the special tokens, the 256 bytes by the code points of the
    characters that stand for them, and pairs of these, the most frequent first; of equally frequent
    pairs the one whose parts were entries sooner.

    Args:
        config: kind and size.
        texts: texts to train on, from the first one at every call; they are read once.

    Returns:
        The tokenizer, which has fewer entries where the texts have too few different words; and 0,
        the share of characters without entries.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    # <mask> takes the space before it with it, as that of RoBERTa: a word has its space within.
    special = [tokenizers.AddedToken(name, special=True) for name in SPECIAL[:-1]]
    special.append(tokenizers.AddedToken(SPECIAL[-1], special=True, lstrip=True))
    trainer = trainers.BpeTrainer(
        vocab_size=config.size,
        min_frequency=0,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", SPECIAL.index("</s>")), ("<s>", SPECIAL.index("<s>")), add_prefix_space=True
    )
    return tokenizer, 0.0
