"""CLIP's text vectors in place of images: of the prompt, or of its words in turn."""

import numpy as np
import pytest

from lavis.common.errors import ConfigError
from lavis.generators.base import ImageRequest
from lavis.generators.build import generator_config
from lavis.generators.config import TextEmbedConfig
from lavis.generators.text_embed import TextEmbedGenerator


def test_text_vectors_stand_in_for_images(clip_folder):
    generator = TextEmbedGenerator.from_config(TextEmbedConfig(model=clip_folder, device="cpu"))
    requests = [ImageRequest("a cat"), ImageRequest("d"), ImageRequest("a cat", 1)]
    features = generator.generate(requests)
    assert [f.shape for f in features] == [(1, 24)] * 3 == [generator.shape] * 3
    np.testing.assert_array_equal(features[0], features[2])
    expected = generator.encoder.embed_texts(["a cat", "d"]).numpy()
    np.testing.assert_array_equal(np.concatenate(features[:2]), expected)
    np.testing.assert_allclose(np.linalg.norm(features[0]), 1, atol=1e-6)


def test_words_are_taken_in_turn(clip_folder):
    config = TextEmbedConfig(model=clip_folder, device="cpu", of="words", num_tokens=2)
    generator = TextEmbedGenerator.from_config(config)
    prompt = "What is a red hat on the big dog?"
    assert generator.texts(ImageRequest(prompt, 0)) == ["red", "hat"]
    assert generator.texts(ImageRequest(prompt, 1)) == ["big", "dog"]
    assert generator.texts(ImageRequest(prompt, 2)) == ["red", "hat"]
    assert generator.texts(ImageRequest("is it", 0)) == ["is it", "is it"]
    assert generator.generate([ImageRequest(prompt)])[0].shape == (2, 24)


def test_one_prompt_has_one_vector():
    with pytest.raises(ConfigError, match="num_tokens: 3 found"):
        generator_config("text_embed", {"num_tokens": 3})
