"""Train a Unigram tokenizer, XLM-R's kind (Kudo 2018, arXiv 1804.10959).

The entries and their probabilities are those of the sentencepiece library, the method's own. Words
are counted here and handed to it in order, to one thread: the same text gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from kdjax.config import TokenizerConfig
from kdjax.text.streams import import_optional
from kdjax.tokenizers.alphabet import most_frequent

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""The special tokens, in the order of their ids: XLM-R's, whose padding has id 1."""
SPACE = "\u2581"
"""Stands for the space before a word."""
LONGEST_WORD = 1000
"""Characters; a longer word is left out of the training, in which it would take long."""


def train(
    config: TokenizerConfig, texts: Callable[[], Iterable[str]]
) -> tuple[tokenizers.Tokenizer, float]:
    """Train a cased Unigram tokenizer; words are split at white space.

    Characters are normalized by NFKC, and control characters are left out. Entries are, in this
    order: the special tokens, and pieces, the most probable first.

    Args:
        config: kind, size and alphabet.
        texts: texts to train on, from the first one at every call; they are read once.

    Returns:
        The tokenizer, which has fewer entries where the texts have too few different words; and the
        share of the texts' characters, white space aside, that have no entry.

    Raises:
        InputError: the sentencepiece library is missing.
    """
    library = import_optional("sentencepiece", "sentencepiece", "data.tokenizer.train 'unigram'")
    normalizer = _normalizer()

    # Different words, and how often each occurs.
    words: Counter[str] = Counter()
    for text in texts():
        words.update(normalizer.normalize_str(text).split())
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    alphabet, uncovered = most_frequent(characters, config.characters)

    # All special tokens but <unk> are added to what is trained.
    pieces: list[tuple[str, float]] = []
    if alphabet:
        pieces = _train_pieces(library, words, alphabet, config.size - len(SPECIAL))
    entries = [*((name, 0.0) for name in SPECIAL), *pieces]
    return tokenizer_of(entries), uncovered


def _train_pieces(
    library: ModuleType, words: Mapping[str, int], alphabet: Sequence[str], size: int
) -> list[tuple[str, float]]:
    """Train pieces of words, and the logarithm of each one's probability.

    Args:
        library: sentencepiece.
        words: word -> how often it occurs.
        alphabet: characters that get entries of their own; words are split at others.
        size: the most pieces.
    """
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=_lines(words, alphabet),
        input_format="tsv",
        model_writer=model,
        model_type="unigram",
        # With the library's own <unk>, which it cannot leave out.
        vocab_size=size + 1,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        # The words are taken as they are.
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        max_sentence_length=8 * LONGEST_WORD,
        num_threads=1,
        minloglevel=2,
    )
    trained = library.SentencePieceProcessor(model_proto=model.getvalue())
    numbers = range(1, trained.get_piece_size())
    return [(trained.id_to_piece(number), trained.get_score(number)) for number in numbers]


def _lines(words: Mapping[str, int], alphabet: Sequence[str]) -> Iterator[str]:
    """Yield parts of words with the counts of the words, each in a line, sorted.

    Words are split as the tokenizer splits them, and where a character has no entry.
    """
    known = re.escape("".join(alphabet))
    part_of_word = re.compile(f"<|[{known}{SPACE}]+")
    parts: Counter[str] = Counter()
    for word, count in words.items():
        if len(word) > LONGEST_WORD:
            continue
        for isolated in re.split("(<)", SPACE + word):
            for part in part_of_word.findall(isolated):
                parts[part] += count
    for part in sorted(parts):
        yield f"{part}\t{parts[part]}"


def _normalizer() -> normalizers.Normalizer:
    """Build the normalizer that leaves out control characters and normalizes all others."""
    return normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])


def tokenizer_of(entries: Sequence[tuple[str, float]]) -> tokenizers.Tokenizer:
    """Build a tokenizer of entries and the logarithms of their probabilities, `SPECIAL` first."""
    unknown = SPECIAL.index("<unk>")
    tokenizer = tokenizers.Tokenizer(models.Unigram(list(entries), unk_id=unknown))
    tokenizer.normalizer = _normalizer()
    # Special tokens are entries of the model, too. Cut at "<", those that a text spells out remain
    # text.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"),
            pre_tokenizers.Split("<", "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))],
    )
    special = [tokenizers.AddedToken(name, special=True) for name in SPECIAL[:-1]]
    special.append(tokenizers.AddedToken(SPECIAL[-1], special=True, lstrip=True))
    tokenizer.add_special_tokens(special)
    return tokenizer
