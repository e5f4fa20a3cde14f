"""Directories of models: reading Hugging Face's, and writing ones that transformers reads where it
has such a class."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models.families import task_heads, transformers_classes
from kdjax.models.families.naming import Tensors
from kdjax.models.families.task_heads import FinetunedHead
from kdjax.models.functional import Model, abstract_params
from kdjax.storage import hub, locks
from kdjax.storage.files import entries, read_json
from kdjax.storage.paths import local_path, path_text
from kdjax.tokenizers.tokenizer_config import NAME as TOKENIZER_CONFIG
from kdjax.tokenizers.tokenizer_config import TOKENIZER, padding_token, write_tokenizer_config

WEIGHTS = "model.safetensors"
WRITTEN = frozenset({"config.json", WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, "README.md"})
"""All files that `save_pretrained` may write."""


def pretrained_config(directory: str | Path) -> ModelConfig:
    """Read the configuration of a saved model from its config.json.

    Args:
        directory: the model's directory, or the name of a repository on the Hub.

    Raises:
        InputError: no such file, or it describes something other than an encoder that this package
            has.
    """
    path = _readable(directory) / "config.json"
    return transformers_classes.from_json(_read_config(path), path)


def _readable(directory: str | Path) -> Path:
    """Return a model's directory, downloaded where it is a repository of the Hub."""
    text = path_text(directory, "the model's directory")
    if hub.is_repository(text):
        return hub.model_directory(hub.parse(text))
    return local_path(text, "the model's directory")


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a Hugging Face directory")
    return read_json(path)


def from_pretrained(directory: str | Path) -> Model:
    """Read a Hugging Face directory of a class in `kdjax.models.families`, or one of our own.

    The weights are in model.safetensors (one file or sharded) or, where PyTorch is installed,
    pytorch_model.bin. Names come with or without the encoder's prefix (`bert.`), LayerNorms as
    weight/bias or gamma/beta. Without an MLM head there is no "mlm" in the parameters; poolers and
    heads for tasks are not read. Parameters are float32.

    Args:
        directory: a directory, or `hf:OWNER/NAME@REVISION`: a repository of the Hugging Face Hub,
            of which safetensors files alone are read.

    Raises:
        InputError: a file is missing, truncated or not what it should be; a tensor is missing,
            unexpected or of another shape than config.json says; the MLM decoder differs from the
            word embedding.
    """
    directory = _readable(directory)
    config = pretrained_config(directory)
    model_type = _read_config(directory / "config.json")["model_type"]
    naming = transformers_classes.naming_of(model_type)
    where = _weights(directory)
    tensors = naming.plain(_read(where), where)
    # Shapes are made layer by layer: a number that no file could hold would take for ever.
    if config.layers > len(tensors):
        raise InputError(
            f"{where}: holds {len(tensors)} tensors, expected those of {config.layers:,} layers as "
            "config.json says"
        )

    abstract = abstract_params(config, mlm=naming.has_mlm_head(tensors))
    return Model(
        config, transformers_classes.read_params(config, model_type, tensors, abstract, where)
    )


def save_pretrained(
    model: Model,
    directory: str | Path,
    *,
    tokenizer: str | Path | None = None,
    card: str | None = None,
    for_transformers: bool = False,
) -> None:
    """Write a directory that `from_pretrained` reads again, bit for bit.

    Where transformers has a class with equal logits, it reads the directory as well: that of the
    model's family, of BERT's family also a relative of BERT
    (`kdjax.models.families.transformers_classes`). Models that no class computes have the
    `model_type` "kdjax", which transformers refuses by name.

    All or nothing: what was there before stays until the new directory is whole.

    Args:
        model: an encoder, with or without an MLM head.
        directory: new, empty, or holding nothing but what this function writes.
        tokenizer: path of a tokenizer.json to put beside the weights, with a tokenizer_config.json
            by which transformers' AutoTokenizer gives the same ids; its padding token is the
            model's.
        card: the text of README.md.
        for_transformers: whether a model that no class of transformers computes is refused.

    Raises:
        InputError: no model, a model that is refused, or a directory that holds other files or
            cannot be written.
    """
    if not isinstance(model, Model):
        raise InputError(
            f"model is {model!r:.80}, expected a kdjax.models.Model, and the directory after it"
        )
    directory = local_path(directory, "the model's directory").resolve()
    if tokenizer is not None:
        tokenizer = local_path(tokenizer, "tokenizer")
        if not tokenizer.is_file():
            raise InputError(f"{tokenizer}: no such file, expected a tokenizer.json")
    config, params = model
    check_saveable(directory)
    if for_transformers:
        transformers_classes.check_exportable(config)
    # Written beside its place, and moved there whole.
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed here
    try:
        beside.mkdir(parents=True)
        write_files(beside, Model(config, params), tokenizer=tokenizer, card=card)
        _swap(beside, directory)
    except (OSError, SafetensorError) as e:
        raise InputError(f"{directory}: cannot be written: {e}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_files(
    directory: Path,
    model: Model,
    *,
    tokenizer: Path | None = None,
    card: str | None = None,
    head: FinetunedHead | None = None,
) -> None:
    """Write a model's files to a directory that is there, one after another.

    Args:
        directory: directory to write to.
        model: an encoder, with or without an MLM head.
        tokenizer: path of a tokenizer.json to copy beside the weights; None: none is copied.
        card: the text of README.md.
        head: head for a task that is stored in place of the MLM head; of a model that
            `task_heads.check_head_exportable` lets pass.

    Raises:
        OSError, SafetensorError: a file cannot be written.
    """
    config, params = model
    if tokenizer is not None:
        config = _padded_as(config, tokenizer)
    if head is None:
        settings = transformers_classes.to_json(config, mlm="mlm" in params)
        tensors = transformers_classes.write_tensors(config, params)
    else:
        encoder = {name: part for name, part in params.items() if name != "mlm"}
        settings = transformers_classes.to_json(config, mlm=False)
        settings |= task_heads.head_settings(config, settings["model_type"], head)
        tensors = task_heads.write_with_head(config, encoder, head)

    (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    # The library gives its file to its owner alone; whoever may read the config may read the
    # weights.
    shutil.copymode(directory / "config.json", directory / WEIGHTS)
    if tokenizer is not None:
        shutil.copyfile(tokenizer, directory / TOKENIZER)
        write_tokenizer_config(directory, tokenizer, config)
    if card is not None:
        (directory / "README.md").write_text(card, encoding="utf-8")


def check_saveable(directory: str | Path) -> None:
    """Check that `save_pretrained` may write this directory.

    Raises:
        InputError: it holds other files.
    """
    directory = local_path(directory, "the model's directory")
    if not directory.exists():
        return
    if not directory.is_dir() or not {file.name for file in entries(directory)} <= WRITTEN:
        raise InputError(
            f"{directory}: holds other files, expected a new directory or an earlier saved model"
        )


def _weights(directory: Path) -> Path:
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        if (directory / name).is_file():
            return directory / name
    raise InputError(f"{directory}: no weights, expected model.safetensors")


def _read(path: Path) -> Tensors:
    if path.suffix == ".bin":
        return _read_pickle(path)
    if path.suffix == ".json":
        index = read_json(path)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict):
            raise InputError(f"{path}: expected an index with a weight_map")
        for name, shard in shards.items():
            # A file of this directory, by its name alone.
            if not isinstance(shard, str) or not shard or Path(shard).name != shard:
                raise InputError(
                    f"{path}: weight_map.{name} is {shard!r:.80}, expected the name of a file "
                    "beside it"
                )
        tensors: Tensors = {}
        for file in sorted({path.parent / shard for shard in shards.values()}):
            tensors |= _read_safetensors(file)
        return tensors
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    # Besides its own error the library raises what NumPy does for types and shapes that it lacks.
    except Exception as e:
        raise InputError(f"{path}: not a whole safetensors file: {e!s:.200}") from None


def _read_pickle(path: Path) -> Tensors:
    try:
        import torch  # noqa: PLC0415 (optional; only this old format needs it)
    except ImportError:
        raise InputError(
            f"{path}: reading it needs PyTorch, expected model.safetensors or PyTorch installed"
        ) from None
    try:
        tensors = {}
        for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
            # NumPy has no bfloat16; what is no floating point number is refused later, by name.
            wide = tensor.float() if tensor.is_floating_point() else tensor
            tensors[str(name)] = wide.numpy()
        return tensors
    # Torch raises pickle, zip, end-of-file and runtime errors for a damaged file.
    except Exception as e:
        raise InputError(
            f"{path}: not a whole PyTorch file of tensors: {type(e).__name__}"
        ) from None


def _padded_as(config: ModelConfig, tokenizer: Path) -> ModelConfig:
    """Return a configuration with the padding token of a tokenizer.json, where that has one.

    transformers takes it from config.json, and some classes count positions from it.
    """
    token = padding_token(read_json(tokenizer), tokenizer)
    if token is None or token >= config.vocab_size:
        return config
    return replace(config, pad_token_id=token)


def _swap(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; if that fails, restore the directory that was there."""
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    replaces = directory.exists()
    if replaces:
        locks.carry(directory, new)
        directory.rename(old)
    try:
        new.rename(directory)
    except OSError:
        if replaces:
            old.rename(directory)
        raise
    if replaces:
        shutil.rmtree(old)
