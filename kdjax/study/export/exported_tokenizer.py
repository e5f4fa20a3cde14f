"""The tokenizer of an exported model: it frames texts as the model saw them framed, and neither
cuts nor pads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.config import ModelConfig
from kdjax.storage.files import read_json
from kdjax.tokenizers import tokenizer_json
from kdjax.tokenizers.special_tokens import templates
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_config import TOKENIZER


def adapt_tokenizer(directory: Path, source: Path, model: ModelConfig) -> None:
    """Have a directory's tokenizer.json take text as kdjax does, where it does not already.

    A tokenizer without a frame gets BERT's, by which its texts were read here. One that says that
    all of a pair is of the first token type gets the types that a model with several was given.
    Lengths to cut and to pad to, which some files hold, are left out.

    Args:
        directory: directory that holds a copy of the tokenizer.
        source: tokenizer.json that it was copied from, whose companions name its special tokens.
        model: model that reads the tokens.

    Raises:
        InputError: the tokenizer is damaged.
        OSError: the file cannot be written.
    """
    content = read_json(source)
    processor = content.get("post_processor")
    has_frame = {"single", "pair"} <= templates(content, source).keys()
    is_framed = has_frame and (model.type_vocab_size < 2 or _tells_types(processor))
    if is_framed and not content.get("truncation") and not content.get("padding"):
        return
    if not is_framed:
        texts = {number: entry for entry, number in tokenizer_json.entries(content).items()}
        frame = _template(TextTokenizer.read(source), texts)
        content["post_processor"] = _with_frame(processor, frame)
    content |= {"truncation": None, "padding": None}
    path = directory / TOKENIZER
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _tells_types(processor: Any) -> bool:
    """Return whether a post-processor that frames gives a pair's second text the type 1."""
    return any(_step_tells_types(step) for step in tokenizer_json.steps(processor))


def _step_tells_types(step: Mapping[str, Any]) -> bool:
    """Return whether one step of a post-processor does."""
    if step.get("type") != "TemplateProcessing":
        return bool(step.get("type") == "BertProcessing")
    # What stands before the second text is of type 0, it and what follows of type 1.
    expected = 0
    for piece in step["pair"]:
        ((_, values),) = piece.items()
        if values["id"] == "B" and "Sequence" in piece:
            expected = 1
        if values["type_id"] != expected:
            return False
    return expected == 1


def _template(tokenizer: TextTokenizer, texts: Mapping[int, str]) -> dict[str, Any]:
    """Build the post-processor that frames as a tokenizer is framed here."""
    used: dict[str, Any] = {}

    def special(ids: tuple[int, ...], type_id: int) -> list[dict[str, Any]]:
        """Return pieces of special tokens, and note them as used."""
        pieces = []
        for number in ids:
            token = texts[number]
            used[token] = {"id": token, "ids": [number], "tokens": [token]}
            pieces.append({"SpecialToken": {"id": token, "type_id": type_id}})
        return pieces

    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    before, behind = tokenizer.framing.single
    single = [*special(before, 0), first, *special(behind, 0)]
    before, between, behind = tokenizer.framing.pair
    pair = [*special(before, 0), first, *special(between, 0), second, *special(behind, 1)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": used,
    }


def _with_frame(processor: Any, frame: Mapping[str, Any]) -> Any:
    """Return a post-processor with another frame; what else it does stays."""
    if processor is None:
        return frame
    kind = processor["type"]
    if kind == "Sequence":
        steps = [_with_frame(step, frame) for step in processor["processors"]]
        return {"type": "Sequence", "processors": steps}
    if kind == "RobertaProcessing":
        # It cuts the space that a token begins with out of its place in the text, too.
        trim = {
            "type": "ByteLevel",
            "add_prefix_space": processor["add_prefix_space"],
            "trim_offsets": processor["trim_offsets"],
            "use_regex": True,
        }
        return {"type": "Sequence", "processors": [trim, frame]}
    if kind in ("BertProcessing", "TemplateProcessing"):
        return frame
    return {"type": "Sequence", "processors": [processor, frame]}
