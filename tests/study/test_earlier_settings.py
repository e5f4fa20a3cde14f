"""Settings that came later do not keep a study of an earlier version from going on."""

from __future__ import annotations

from dataclasses import replace

from kdjax.config import Config, DataConfig, MaskingConfig, ModelSpec
from kdjax.study.manifest import shared_settings


def test_unit_of_masks_is_named_only_where_it_is_not_the_token() -> None:
    config = Config()
    # What an earlier version wrote into study.json.
    assert shared_settings(config)["data"]["masking"] == {"mask": 0.8, "random": 0.1, "keep": 0.1}
    words = replace(config, data=DataConfig(masking=MaskingConfig(unit="word")))
    assert shared_settings(words)["data"]["masking"]["unit"] == "word"
    assert shared_settings(words) != shared_settings(config)


def test_packing_and_decoder_are_named_only_where_they_are_not_as_before() -> None:
    before = shared_settings(Config())
    assert "packing" not in before["data"]
    assert "decoder_bias" not in {**before["student"], **before["teacher"]["architecture"]}
    unpacked = shared_settings(replace(Config(), data=DataConfig(packing="none")))
    assert unpacked["data"]["packing"] == "none"
    biasless = shared_settings(replace(Config(), student=ModelSpec(decoder_bias=False)))
    assert biasless["student"]["decoder_bias"] is False
