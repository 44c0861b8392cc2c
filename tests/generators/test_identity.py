"""What a stored image belongs to: every option of every generator, and what its files hold."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from lavis.common import registry
from lavis.generators import diffusion, folder, retrieval, text_embed
from lavis.generators.build import build_generator
from lavis.generators.clip import ClipEncoder, Preprocessing
from lavis.generators.config import TextEmbedConfig
from lavis.generators.text_embed import TextEmbedGenerator

# generator -> (options whose part in its output is told otherwise or that have none, other values)
OPTIONS = {
    "diffusion": (
        diffusion._NO_PIXELS,
        {
            "model": "x",
            "revision": "r",
            "variant": "v",
            "dtype": "bf16",
            "steps": 2,
            "guidance_scale": 1.0,
            "negative_prompt": "n",
            "image_size": 256,
        },
    ),
    "folder": (folder._NO_PIXELS, {"missing": "repeat", "manifest": "list.jsonl"}),
    "retrieval": (
        retrieval._NO_PIXELS,
        {"image_field": "other", "caption_field": "also", "similarity": None},
    ),
    "text_embed": (text_embed._NO_VECTOR, {"of": "words", "num_tokens": 2}),
}


@pytest.fixture
def place(tmp_path):
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "cat.png")
    (tmp_path / "list.jsonl").write_text('{"prompt": "cat", "images": ["cat.png"]}\n')
    record = {"image": "cat.png", "other": "cat.png", "caption": "a cat", "also": "a cat"}
    (tmp_path / "captions.jsonl").write_text(json.dumps(record) + "\n")
    return tmp_path


def fingerprint(name, place, **options):
    given = {
        "folder": {"root": str(place)},
        "retrieval": {"records": str(place / "captions.jsonl")},
    }.get(name, {})
    if "manifest" in options:
        options["manifest"] = str(place / options["manifest"])
    if name == "text_embed":
        return TextEmbedGenerator(encoder(), TextEmbedConfig(**options)).fingerprint()
    return build_generator(name, {**given, **options}).fingerprint()


def encoder(**changes):
    torch.manual_seed(0)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    size["num_hidden_layers"] = 1
    config = CLIPConfig(
        text_config={**size, "vocab_size": 9, "max_position_embeddings": 5, "eos_token_id": 2},
        vision_config={**size, "image_size": 8, "patch_size": 4, **changes},
        projection_dim=4,
    )
    return ClipEncoder(CLIPModel(config), lambda texts: None, Preprocessing(8, 8))


def test_every_generator_is_looked_at():
    names = registry.generators.list()  # plug-ins that other tests import are theirs
    ours = [n for n in names if registry.generators.get(n).__module__.startswith("lavis.")]
    assert sorted(OPTIONS) == ours


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_belongs_to_the_image_or_is_listed_as_not(name, place):
    free, changes = OPTIONS[name]
    fields = {field.name for field in dataclasses.fields(registry.generators.config_class(name))}
    assert fields == free | set(changes) and not free & set(changes)
    plain = fingerprint(name, place)
    for option, value in changes.items():
        if option == "similarity":
            continue  # `clip` loads a model; its index says so below
        extra = {"of": "words"} if option == "num_tokens" else {}
        base = fingerprint(name, place, **extra) if extra else plain
        assert fingerprint(name, place, **{option: value}, **extra) != base, option
    assert fingerprint(name, place, batch_size=7) == plain


@pytest.mark.parametrize("name", ["folder", "retrieval"])
def test_another_image_of_equal_name_size_and_time_is_another_one(name, place):
    path = place / "cat.png"
    before, status, content = fingerprint(name, place), path.stat(), path.read_bytes()
    assert fingerprint(name, place) == before
    path.write_bytes(content[:-20] + bytes(20))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert fingerprint(name, place) != before
    path.write_bytes(content)  # touched, but what it was
    assert fingerprint(name, place) == before
    path.unlink()
    assert fingerprint(name, place) != before or name == "folder"


@pytest.mark.parametrize("name", ["folder", "retrieval"])
def test_large_folders_are_told_apart_without_reading_them(name, place, monkeypatch):
    from lavis.generators import image_files as image_files

    monkeypatch.setattr(image_files, "READ_AT_MOST", 10)
    monkeypatch.setattr(image_files, "content_digest", lambda path: pytest.fail("read"))
    path = place / "cat.png"
    before, status = fingerprint(name, place), path.stat()
    assert fingerprint(name, place) == before
    path.write_bytes(bytes(len(path.read_bytes())))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time of its status stays new
    assert fingerprint(name, place) != before


def test_records_and_how_texts_are_compared_belong_to_retrieved_images(place):
    path, before = place / "captions.jsonl", fingerprint("retrieval", place)
    text = path.read_text()
    path.write_text(text.replace("a cat", "a dog"))
    assert fingerprint("retrieval", place) != before
    path.write_text(text)
    tfidf = build_generator("retrieval", {"records": str(path)})
    vectors = retrieval.EmbeddingIndex(["a cat"], lambda t: np.ones((len(t), 2)), {"a": 1})
    others = retrieval.EmbeddingIndex(["a cat"], lambda t: np.ones((len(t), 2)), {"a": 2})
    found = [
        json.dumps(retrieval.RetrievalGenerator(tfidf.images, index).fingerprint())
        for index in (tfidf.index, vectors, others)
    ]
    assert len(set(found)) == 3


def test_a_clip_model_is_its_weights_settings_tokenizer_and_device():
    plain = encoder().fingerprint()
    assert encoder().fingerprint() == plain
    assert encoder(hidden_act="gelu").fingerprint() != plain  # the same weights
    other = encoder()
    other._text_identity = "another"
    assert other.fingerprint() != plain
    with torch.no_grad():
        other = encoder()
        other.model.logit_scale += 1
    assert other.fingerprint() != plain
    other = encoder()
    other._home = torch.device("cuda")
    assert other.fingerprint() != plain
    other = encoder()
    other.preprocessing = Preprocessing(9, 8)
    assert other.fingerprint() != plain


def test_images_are_made_where_the_run_computes(monkeypatch):
    from lavis.common.dist import building_for
    from lavis.generators.build import placed
    from lavis.generators.config import ImagesConfig

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with building_for(torch.device("cpu")):
        assert placed(ImagesConfig()).device == "cpu"
        assert placed(ImagesConfig(device="cuda")).device == "cuda"
    assert placed(ImagesConfig()).device == "cuda"
