"""Directories of models: reading Hugging Face's, and writing ones that transformers reads where it
has such a class."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import formats
from kdjax.models.bert import Model, Params, abstract_params
from kdjax.models.naming import NAMINGS, Tensors
from kdjax.storage import hub, locks
from kdjax.storage.files import entries, read_json
from kdjax.storage.paths import local_path, path_text
from kdjax.tokenizer_config import TOKENIZER, write_tokenizer_config

_SINES = "encoder.embed_positions.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_WRITTEN = frozenset(
    {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
)


def pretrained_config(directory: str | Path) -> ModelConfig:
    """Read the configuration of a saved model from its config.json.

    Args:
        directory: as for `from_pretrained`.

    Raises:
        InputError: no such file, or it describes something other than an encoder that this package
            has.
    """
    path = _readable(directory) / "config.json"
    return formats.from_json(_read_config(path), path)


def _readable(directory: str | Path) -> Path:
    """Return a model's directory, downloaded where it is a repository of the Hub."""
    text = path_text(directory, "the model's directory")
    if hub.is_repository(text):
        return hub.model_directory(hub.parse(text))
    return local_path(text, "the model's directory")


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a Hugging Face BERT directory")
    return read_json(path)


def from_pretrained(directory: str | Path) -> Model:
    """Read a Hugging Face directory of a class in `kdjax.models.formats`, or one of our own.

    The weights are in model.safetensors (one file or sharded) or, where PyTorch is installed,
    pytorch_model.bin. Names come with or without the prefix `bert.`, LayerNorms as weight/bias or
    gamma/beta. Without an MLM head there is no "mlm" in the parameters; other heads are not read.
    Parameters are float32.

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
    config_path = directory / "config.json"
    settings = _read_config(config_path)
    rows_before = formats.rows_before_positions(settings, config_path)
    stored_as = formats.FORMATS.get(settings["model_type"])
    naming = NAMINGS[settings["model_type"]]
    where = _weights(directory)
    tensors = naming.plain(_read(where), where)
    # Shapes are made layer by layer: a number that no file could hold would take for ever.
    if config.layers > len(tensors):
        raise InputError(
            f"{where}: holds {len(tensors)} tensors, expected those of {config.layers:,} layers as "
            "config.json says"
        )

    def take(path: tuple[Any, ...], expected: jax.ShapeDtypeStruct) -> jax.Array:
        """Remove a parameter's tensor from `tensors`; return it in the parameter's layout.

        Raises:
            InputError: it is missing, of another shape or not of finite floating point numbers.
        """
        name, transposed = naming.name_of(path)
        if name not in tensors:
            raise InputError(f"{where}: tensor {name!r} is missing")
        tensor = tensors.pop(name)
        shape = expected.shape
        if transposed:
            shape = shape[::-1]
        if name == _POSITIONS:
            shape = (shape[0] + rows_before, shape[1])
        if tensor.shape != shape:
            raise InputError(
                f"{where}: tensor {name!r} has the shape {tensor.shape}, config.json says {shape}"
            )
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise InputError(
                f"{where}: tensor {name!r} holds {tensor.dtype}, expected floating point numbers"
            )
        # One that is not finite makes every loss NaN, and is a sign of a damaged file.
        if not np.isfinite(tensor).all():
            raise InputError(f"{where}: tensor {name!r} holds numbers that are not finite")
        array = tensor
        if transposed:
            array = tensor.T
        if name == _POSITIONS:
            array = array[rows_before:]
        if stored_as is not None and stored_as.turns_neighbours and _is_turned(path):
            array = formats.halves_of_neighbours(array, config.heads)
        return jnp.asarray(array, jnp.float32)

    expected = abstract_params(config, mlm=naming.has_mlm_head(tensors))
    params = jax.tree_util.tree_map_with_path(take, expected)
    if tensors:
        raise InputError(
            f"{where}: unexpected tensor {min(tensors)!r} for {config.layers} layers as "
            "config.json says"
        )
    return Model(config, params)


def save_pretrained(
    model: Model,
    directory: str | Path,
    *,
    tokenizer: str | Path | None = None,
    card: str | None = None,
) -> None:
    """Write a directory that `from_pretrained` reads again, bit for bit.

    Where transformers has a class with equal logits, it reads the directory as well:
    `BertForMaskedLM` for BERT as it is (`BertModel` without an MLM head), `RoFormerForMaskedLM` or
    `RobertaPreLayerNormForMaskedLM` for some others (`kdjax.models.formats`). Models that no class
    computes, as pre-LN with rotary positions, have the `model_type` "kdjax", which transformers
    refuses by name.

    All or nothing: what was there before stays until the new directory is whole.

    Args:
        model: an encoder, with or without an MLM head.
        directory: new, empty, or holding nothing but what this function writes.
        tokenizer: path of a tokenizer.json to put beside the weights, with a tokenizer_config.json
            by which transformers' AutoTokenizer gives the same ids.
        card: the text of README.md.

    Raises:
        InputError: no model, or a directory that holds other files or cannot be written.
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
    # Written beside its place, and moved there whole.
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed here
    try:
        beside.mkdir(parents=True)
        (beside / "config.json").write_text(
            _config_json(config, mlm="mlm" in params), encoding="utf-8"
        )
        save_file(_tensors(config, params), beside / "model.safetensors", metadata={"format": "pt"})
        # The library gives its file to its owner alone; whoever may read the config may read the
        # weights.
        shutil.copymode(beside / "config.json", beside / "model.safetensors")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, beside / TOKENIZER)
            write_tokenizer_config(beside, tokenizer, config)
        if card is not None:
            (beside / "README.md").write_text(card, encoding="utf-8")
        _swap(beside, directory)
    except (OSError, SafetensorError) as e:
        raise InputError(f"{directory}: cannot be written: {e}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_saveable(directory: str | Path) -> None:
    """Check that `save_pretrained` may write this directory.

    Raises:
        InputError: it holds other files.
    """
    directory = local_path(directory, "the model's directory")
    if not directory.exists():
        return
    if not directory.is_dir() or not {file.name for file in entries(directory)} <= _WRITTEN:
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


def _tensors(config: ModelConfig, params: Params) -> Tensors:
    """Return parameters as the tensors of a checkpoint."""
    stored_as = formats.format_of(config)
    naming = NAMINGS[formats.OWN if stored_as is None else stored_as.model_type]
    mlm = "mlm" in params
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, transposed = naming.name_of(path)
        array = np.asarray(leaf, np.float32)
        if stored_as is not None and stored_as.turns_neighbours and _is_turned(path):
            array = formats.neighbours_of_halves(array, config.heads)
        if stored_as is not None and stored_as.pad_token_id is not None and name == _POSITIONS:
            array = np.concatenate([np.zeros((1, array.shape[1]), np.float32), array])
        if transposed:
            array = array.T
        # safetensors does not look at strides.
        tensors[naming.full_name(name, mlm=mlm)] = np.ascontiguousarray(array)
    if stored_as is not None and stored_as.turns_neighbours:
        tensors[naming.full_name(_SINES, mlm=mlm)] = formats.sine_table(config)
    return tensors


def _is_turned(path: tuple[Any, ...]) -> bool:
    """Return whether a parameter is of queries or keys, which rotary positions turn."""
    return path[-2].key in ("query", "key")


def _config_json(config: ModelConfig, *, mlm: bool) -> str:
    return json.dumps(formats.to_json(config, mlm=mlm), indent=2) + "\n"


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
