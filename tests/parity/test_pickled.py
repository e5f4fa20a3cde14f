"""Weights pickled by PyTorch: refused in one line where damaged or more than tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from kdjax.errors import InputError
from kdjax.models import from_pretrained, init, save_pretrained
from tests.models.fixtures import ConfigWith


@pytest.fixture
def pickled(tmp_path: Path, config_with: ConfigWith) -> Path:
    """A directory whose weights are still to be written, as pytorch_model.bin."""
    directory = tmp_path / "teacher"
    save_pretrained(init(config_with(), 0), directory)
    (directory / "model.safetensors").unlink()
    return directory


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04"])
def test_damaged_pickle_is_refused(pickled: Path, content: bytes) -> None:
    (pickled / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"pytorch_model.bin: not a whole PyTorch file"):
        from_pretrained(pickled)


def test_pickle_of_more_than_tensors_is_refused_and_not_run(pickled: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"x": Attack()}, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin"):
        from_pretrained(pickled)
    assert not (tmp_path / "attacked").exists()
