"""CLIP vectors and scores: the published values, and the faults of the published code on demand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

from golden.clip import clip_checks
from lavis.common.errors import ConfigError
from lavis.generators.base import ImageRequest
from lavis.generators.build import generator_config
from lavis.generators.clip import ClipEncoder, Preprocessing, preprocess, truncate
from lavis.generators.config import TextEmbedConfig
from lavis.generators.scoring import ClipScorer
from lavis.generators.text_embed import TextEmbedGenerator

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vlmig" / "clip"
CASES = ("same_prompt", "padded_prompts", "prompt_with_id_1", "prompt_over_77")


@pytest.fixture(scope="module")
def model():
    whole = CLIPModel(CLIPConfig(**json.loads((FIXTURES / "config.json").read_text())))
    whole.load_state_dict(load_file(FIXTURES / "model.safetensors"), strict=False)
    return whole


@pytest.fixture(scope="module")
def clip_folder(model, tmp_path_factory):
    """The tiny model with a tokenizer of single letters, as `from_pretrained` wants it."""
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    letters = [chr(97 + i) for i in range(26)]
    vocab = {letter: i + 3 for i, letter in enumerate(letters)}
    vocab |= {f"{letter}</w>": i + 40 for i, letter in enumerate(letters)}
    vocab |= {"<|startoftext|>": 298, "<|endoftext|>": 299}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return str(folder)


def test_scores_and_pixels_equal_the_published_ones():
    checks = list(clip_checks(FIXTURES))
    assert {check.name.split(".")[1] for check in checks} == {*CASES, "preprocess"}
    assert [check for check in checks if not check.passed] == []


def test_long_texts_keep_start_and_end():
    ids = torch.tensor([[90, 1, 2, 3, 4, 99], [90, 5, 99, 99, 99, 99], [90, 6, 7, 99, 99, 99]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    cut, seen = truncate(ids, mask, 4)
    assert cut.tolist() == [[90, 1, 2, 99], [90, 5, 99, 99], [90, 6, 7, 99]]
    assert seen.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert truncate(ids, mask, 6)[0] is ids


def test_a_long_text_beside_it_changes_no_score(clip_folder):
    scorer = ClipScorer.from_pretrained(clip_folder, device="cpu")
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    short, long = "a cat", "b d " * 60
    together = scorer.score([short, long, short], [image] * 3)
    assert together.dtype == np.float32
    assert together[0] == pytest.approx(together[2], abs=1e-6)  # rows of one product
    alone = [scorer.score([text], [image])[0] for text in (short, long)]
    np.testing.assert_allclose(together[:2], alone, atol=1e-6)
    cut = scorer.encoder.embed_texts(["b d " * 60]), scorer.encoder.embed_texts(["b d " * 38 + "b"])
    torch.testing.assert_close(*cut)  # 75 letters between start and end
    faulty = ClipScorer.from_pretrained(clip_folder, device="cpu", compat="released")
    assert abs(faulty.score([short, long], [image] * 2)[0] - alone[0]) > 1e-3
    assert faulty.fingerprint() != scorer.fingerprint()
    assert scorer.score([], []).shape == (0,)


def test_a_folder_without_settings_gets_the_towers_size(clip_folder):
    encoder = ClipEncoder.from_pretrained(clip_folder, device="cpu")
    assert encoder.preprocessing == Preprocessing(64, 64)
    settings = {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 64}}
    Path(clip_folder, "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = ClipEncoder.from_pretrained(clip_folder, device="cpu")
    Path(clip_folder, "preprocessor_config.json").unlink()
    assert encoder.preprocessing == Preprocessing(80, 64)
    assert preprocess([Image.new("RGB", (33, 99))], encoder.preprocessing).shape == (1, 3, 64, 64)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot load .*nowhere. as a CLIP model"):
        ClipEncoder.from_pretrained(str(tmp_path / "nowhere"), device="cpu")


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


def test_siglip_is_no_clip_model(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    config = SiglipConfig(text_config=sizes, vision_config=sizes)
    SiglipModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="it is a 'siglip', whose scores are not CLIP's"):
        ClipEncoder.from_pretrained(str(tmp_path))
