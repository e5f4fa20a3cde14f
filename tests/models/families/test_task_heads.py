"""Fine-tuned models as classes of transformers for sequence classification."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from kdjax.errors import InputError
from kdjax.models import classify
from kdjax.models.families.task_heads import FinetunedHead, check_head_exportable
from kdjax.models.hf import write_files
from tests.golden import record_task_heads
from tests.golden.record_families import BATCH, FAMILIES, RELATIVES
from tests.golden.record_task_heads import CLASSES, CONFIGS, model_with_head


@pytest.mark.parametrize("name", CONFIGS)
def test_head_has_the_logits_of_its_class_of_transformers(name: str) -> None:
    """They were recorded by `python -m tests.golden.record_task_heads`: transformers reads what was
    written, in PyTorch."""
    model, head = model_with_head(name)
    check_head_exportable(model.config, head.pool)
    batch = {**BATCH, "valid": BATCH["segments"] > 0}
    logits = classify(model.config, model.params, head.params, batch, pool=head.pool)
    with np.load(record_task_heads.GOLDEN) as recorded:
        want = recorded[name]
    assert np.ptp(want) > 0.1
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_config_of_a_fine_tuned_model_names_class_labels_and_problem(tmp_path: Path) -> None:
    model, head = model_with_head("roberta")
    write_files(tmp_path, model, head=head)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["architectures"] == ["RobertaForSequenceClassification"]
    assert settings["problem_type"] == "single_label_classification"
    assert settings["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"}
    assert settings["label2id"] == {"no": 0, "perhaps": 1, "yes": 2}
    assert settings["classifier_dropout"] == model.config.dropout
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["classifier.out_proj.weight"].shape == (len(CLASSES), model.config.width)
    assert "roberta.embeddings.word_embeddings.weight" in tensors


def test_regression_has_one_output_and_says_so(tmp_path: Path) -> None:
    model, head = model_with_head("modernbert by the mean")
    output = {name: jnp.asarray(leaf)[..., :1] for name, leaf in head.params["output"].items()}
    write_files(tmp_path, model, head=FinetunedHead({**head.params, "output": output}, "mean", ()))
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["problem_type"] == "regression"
    assert settings["id2label"] == {"0": "LABEL_0"}
    assert settings["classifier_pooling"] == "mean"


def test_head_that_no_class_has_is_refused_with_what_can() -> None:
    with pytest.raises(InputError, match="roformer's head has the layers' activation"):
        check_head_exportable(RELATIVES["roformer"], "first")
    with pytest.raises(InputError, match="'mean', expected 'first', which is what BertFor"):
        check_head_exportable(FAMILIES["bert"], "mean")
