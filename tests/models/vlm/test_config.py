"""Options of vision-language models: what each does, and which values are refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from lavis.common.errors import ConfigError
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.zoo import load_model

PARTS = [
    {"question": "what is [0]?", "answer": answer, "rationale": "", "text": answer}
    for answer in ("a dog", "a red cat", "left of the dog", "blue")
]


def load(folder, **options):
    return load_model("vlm_critic", "default", is_eval=True, overrides={"name": folder, **options})


@pytest.mark.parametrize(
    ("options", "branches"),
    [({}, 1), ({"max_texts_per_pass": 2}, 2), ({"max_tokens_per_pass": 1}, 4)],
)
def test_bounds_of_a_pass_change_no_score(vlm_folder, views, options, branches):
    folder = vlm_folder("qwen2_5_vl")
    samples = {"views": views[:1], "parts": PARTS, "image_index": [0] * 4}
    whole = load(folder).predict(samples)["prediction"]
    model = load(folder, **options)
    result = model.predict(samples)["prediction"]
    assert (result - whole).abs().max() < 1e-5
    assert model.reader.passes["branches"] == branches
    assert model.reader.passes["beginning"] == 1


def test_quantized_weights_need_a_gpu(vlm_folder):
    with pytest.raises(ConfigError, match=r"model.quantization=nf4 needs a GPU; use null"):
        load(vlm_folder("qwen2_5_vl"), quantization="nf4")


def test_data_sets_use_the_processors_of_the_model():
    assert VlmCriticConfig.own_processors
    with pytest.raises(ValueError, match=r"model\.min_pixels is 9, above model\.max_pixels=4"):
        VlmCriticConfig(name="a/b", min_pixels=9, max_pixels=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "/no/such/folder"}, "model.name: no such folder: /no/such/folder"),
        ({"letter_prompt": "leters"}, "model.letter_prompt: 'leters' is neither a preset"),
        ({"yes_words": ()}, "at least 1 item"),
        ({"no_words": (" ",)}, "should match pattern"),
        ({"quantization": "int4"}, "'int8' or 'nf4'"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VlmCriticConfig(**{"name": "org/model", **options})


def test_it_imports_no_torch():
    code = "import sys, lavis.models.vlm.config; assert 'torch' not in sys.modules"
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_pixels_are_bounded_where_the_family_has_bounds(vlm_folder, views):
    few = load(vlm_folder("qwen2_5_vl"), max_pixels=28 * 28 * 4)
    encoded = few.encoder.encode(views[0], [few.encoder.write("what?", 1)])
    assert encoded.vision["image_grid_thw"].prod() <= 4 * 4  # patches of 14, four to a token
    with pytest.raises(ConfigError, match=r"model.max_pixels: the processor of a 'gemma3' has"):
        load(vlm_folder("gemma3"), max_pixels=100)
