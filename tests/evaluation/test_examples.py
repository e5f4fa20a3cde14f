"""The examples in docstrings of evaluations print what they say."""

from __future__ import annotations

from pathlib import Path

from kdjax.config import FinetuneConfig, MinimalPairsConfig
from kdjax.data.contamination.check import compare
from kdjax.data.contamination.rows import RowGroup
from kdjax.data.minimal_pairs import load
from kdjax.evaluation.finetuning import EncoderSetup, finetune
from kdjax.evaluation.minimal_pairs import score_pairs
from kdjax.evaluation.statistics import compare_all
from kdjax.models import init
from tests.evaluation import handmade
from tests.support import tiny
from tests.support.doctests import check_example
from tests.support.pairs import make_tokenizer, write_all


def test_example_of_compare_all_prints_what_it_says() -> None:
    check_example(compare_all, {"compare_all": compare_all})


def test_example_of_finetune_prints_what_it_says() -> None:
    names = {
        "EncoderSetup": EncoderSetup,
        "FinetuneConfig": FinetuneConfig,
        "finetune": finetune,
        "model": handmade.MODEL,
        "params": init(handmade.MODEL, 0).params,
        "task": handmade.task(train=32),
    }
    check_example(finetune, names)


def test_example_of_score_pairs_prints_what_it_says(tmp_path: Path) -> None:
    directory = write_all(tmp_path)
    config = MinimalPairsConfig(directory=str(directory), sets=("supplement",))
    (pairs,) = load(config, make_tokenizer(directory / "tokenizer.json"), 24)
    model = tiny.SHALLOW_STUDENT
    names = {
        "score_pairs": score_pairs,
        "model": model,
        "params": init(model, 0).params,
        "pairs": pairs,
    }
    check_example(score_pairs, names)


def test_example_of_contamination_prints_what_it_says() -> None:
    check_example(compare, {"RowGroup": RowGroup, "compare": compare})
