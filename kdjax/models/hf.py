"""Hugging Face BERT directories: reading them, and writing ones that transformers reads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdjax.config import ModelConfig
from kdjax.errors import InputError, nearest
from kdjax.files import read_json
from kdjax.models.bert import Model, Params, abstract_params
from kdjax.models.naming import Tensors, has_mlm_head, name_of, plain

_GELUS: dict[str, Literal["exact", "tanh"]] = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_ONLY = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
_SETTINGS: dict[str, tuple[str, int | float]] = {
    "layers": ("num_hidden_layers", 12),
    "width": ("hidden_size", 768),
    "heads": ("num_attention_heads", 12),
    "ffn": ("intermediate_size", 3072),
    "vocab_size": ("vocab_size", 30522),
    "max_positions": ("max_position_embeddings", 512),
    "types": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "norm_eps": ("layer_norm_eps", 1e-12),
}
"""`ModelConfig`'s names; those of config.json, and what holds where it has none: transformers' defaults."""
_WRITTEN = frozenset({"config.json", "model.safetensors", "tokenizer.json", "README.md"})


def pretrained_config(directory: str | Path) -> ModelConfig:
    """The configuration of a Hugging Face BERT directory, from its config.json.

    Raises:
        InputError: no such file, or it describes something other than a BERT encoder this package has.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a Hugging Face BERT directory")
    raw = read_json(path)
    found = raw.get("model_type") if isinstance(raw, dict) else None
    if found != "bert":
        raise InputError(f"{path}: model_type is {found!r}, expected 'bert'")
    for name, only in _ONLY.items():
        if raw.get(name, only) != only:
            raise InputError(f"{path}: {name} is {raw[name]!r}, expected {only!r}")
    act = raw.get("hidden_act", "gelu")
    if not isinstance(act, str) or act not in _GELUS:
        raise InputError(f"{path}: hidden_act is {act!r}{nearest(str(act), _GELUS)}")
    sizes = {
        ours: _number(raw.get(theirs, default), default, f"{path}: {theirs}")
        for ours, (theirs, default) in _SETTINGS.items()
    }
    try:
        return ModelConfig(gelu=_GELUS[act], **sizes)  # type: ignore[arg-type]
    except InputError as e:
        raise InputError(f"{path}: {e}") from None


def _number(found: Any, like: int | float, what: str) -> int | float:
    """A setting, checked to be of the kind of its default."""
    kind = type(like)
    if isinstance(found, bool) or not isinstance(found, (kind, int)):
        raise InputError(f"{what} is {found!r}, expected {'an integer' if kind is int else 'a number'}")
    return kind(found)


def from_pretrained(directory: str | Path) -> Model:
    """Reads a Hugging Face BERT directory.

    The weights are in model.safetensors (one file or sharded) or, where PyTorch is installed, pytorch_model.bin. Names
    come with or without the prefix `bert.`, LayerNorms as weight/bias or gamma/beta. Without an MLM head there is no
    "mlm" in the parameters; other heads are not read. Parameters are float32.

    Raises:
        InputError: a file is missing, truncated or not what it should be; a tensor is missing, unexpected or of another
            shape than config.json says; the MLM decoder differs from the word embedding.
    """
    directory = Path(directory)
    config = pretrained_config(directory)
    where = _weights(directory)
    tensors = plain(_read(where), where)

    def take(path: tuple[Any, ...], expected: jax.ShapeDtypeStruct) -> jax.Array:
        name, transposed = name_of(path)
        if name not in tensors:
            raise InputError(f"{where}: tensor {name!r} is missing")
        found = tensors.pop(name)
        shape = expected.shape[::-1] if transposed else expected.shape
        if found.shape != shape:
            raise InputError(f"{where}: tensor {name!r} has the shape {found.shape}, config.json says {shape}")
        if not jnp.issubdtype(found.dtype, jnp.floating):
            raise InputError(f"{where}: tensor {name!r} holds {found.dtype}, expected floating point numbers")
        return jnp.asarray(found.T if transposed else found, jnp.float32)

    params = jax.tree_util.tree_map_with_path(take, abstract_params(config, mlm=has_mlm_head(tensors)))
    if tensors:
        raise InputError(f"{where}: unexpected tensor {min(tensors)!r} for {config.layers} layers as config.json says")
    return Model(config, params)


def save_pretrained(
    directory: str | Path, model: Model, *, tokenizer: Path | None = None, card: str | None = None
) -> None:
    """Writes a directory that transformers' `BertForMaskedLM` (or `BertModel`, without an MLM head) reads.

    All or nothing: what was there before stays until the new directory is whole.

    Args:
        directory: new, empty, or holding nothing but what this function writes.
        model: post-LN with embedding LN, as transformers' BERT is.
        tokenizer: a tokenizer.json to put beside the weights.
        card: the text of README.md.

    Raises:
        InputError: a model transformers' BERT cannot express; a directory that holds other files or cannot be written.
    """
    directory, (config, params) = Path(directory).resolve(), model
    if config.norm != "post" or not config.embedding_norm:
        raise InputError(
            f"{directory}: model has norm={config.norm!r}, embedding_norm={config.embedding_norm}; Hugging Face's BERT "
            "is norm='post', embedding_norm=True"
        )
    check_saveable(directory)
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed here
    try:
        beside.mkdir(parents=True)
        (beside / "config.json").write_text(_config_json(config, mlm="mlm" in params), encoding="utf-8")
        save_file(_tensors(params), beside / "model.safetensors", metadata={"format": "pt"})
        if tokenizer is not None:
            shutil.copyfile(tokenizer, beside / "tokenizer.json")
        if card is not None:
            (beside / "README.md").write_text(card, encoding="utf-8")
        _swap(beside, directory)
    except (OSError, SafetensorError) as e:
        raise InputError(f"{directory}: cannot be written: {e}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_saveable(directory: Path) -> None:
    """Whether `save_pretrained` may have this directory.

    Raises:
        InputError: it holds other files.
    """
    if directory.exists() and not (directory.is_dir() and {f.name for f in directory.iterdir()} <= _WRITTEN):
        raise InputError(f"{directory}: holds other files, expected a new directory or an earlier saved model")


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
        files = sorted({path.parent / str(shard) for shard in shards.values()})
        return {name: tensor for file in files for name, tensor in _read_safetensors(file).items()}
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as e:
        raise InputError(f"{path}: not a whole safetensors file: {e}") from None


def _read_pickle(path: Path) -> Tensors:
    try:
        import torch  # noqa: PLC0415 (optional; only this old format needs it)
    except ImportError:
        raise InputError(f"{path}: reading it needs PyTorch, expected model.safetensors or PyTorch installed") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): (x.float() if x.is_floating_point() else x).numpy() for name, x in loaded.items()}
    except Exception as e:  # torch raises pickle, zip, end-of-file and runtime errors for a damaged file
        raise InputError(f"{path}: not a whole PyTorch file of tensors: {type(e).__name__}") from None


def _tensors(params: Params) -> Tensors:
    prefix = "bert." if "mlm" in params else ""

    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, transposed = name_of(path)
        array = np.asarray(leaf, np.float32)
        full = name if name.startswith("cls.") else prefix + name
        tensors[full] = np.ascontiguousarray(array.T if transposed else array)  # safetensors does not look at strides
    return tensors


def _config_json(config: ModelConfig, *, mlm: bool) -> str:
    settings = {
        "architectures": ["BertForMaskedLM" if mlm else "BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu" if config.gelu == "exact" else "gelu_new",
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _SETTINGS.items()},
    }
    return json.dumps(settings, indent=2) + "\n"


def _swap(new: Path, directory: Path) -> None:
    """Puts `new` in the place of `directory`; what was there comes back if that fails."""
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    had = directory.exists()
    if had:
        directory.rename(old)
    try:
        new.rename(directory)
    except OSError:
        if had:
            old.rename(directory)
        raise
    if had:
        shutil.rmtree(old)
