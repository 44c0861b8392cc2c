"""A tiny CLIP model with the published set's weights."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vlmig" / "clip"


@pytest.fixture(scope="session")
def clip_model():
    whole = CLIPModel(CLIPConfig(**json.loads((FIXTURES / "config.json").read_text())))
    whole.load_state_dict(load_file(FIXTURES / "model.safetensors"), strict=False)
    return whole


@pytest.fixture(scope="session")
def clip_folder(clip_model, tmp_path_factory):
    """The tiny model with a tokenizer of single letters, as `from_pretrained` wants it."""
    folder = tmp_path_factory.mktemp("clip")
    clip_model.save_pretrained(folder)
    letters = [chr(97 + i) for i in range(26)]
    vocab = {letter: i + 3 for i, letter in enumerate(letters)}
    vocab |= {f"{letter}</w>": i + 40 for i, letter in enumerate(letters)}
    vocab |= {"<|startoftext|>": 298, "<|endoftext|>": 299}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return str(folder)
