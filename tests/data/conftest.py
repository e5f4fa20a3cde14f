"""A prepared corpus that tests share; none of them changes it."""

from __future__ import annotations

import pytest

from kdjax.config import DataConfig
from kdjax.data.corpus import Corpus
from kdjax.data.prepare.local import prepare
from tests.support.corpora import make_corpus, make_tokenizer


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """About 190 training and 50 validation sequences of 24 tokens in four shards a split."""
    here = tmp_path_factory.mktemp("corpus")
    config = DataConfig(
        files=str(make_corpus(here / "text.jsonl", 240)),
        seq_len=24,
        max_predictions=4,
        validation=0.2,
        shard_documents=64,
        workers=1,
    )
    prepare(config, make_tokenizer(here / "tokenizer.json"), here / "prepared")
    return Corpus.open(here / "prepared")
