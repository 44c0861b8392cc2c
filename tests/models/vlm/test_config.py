"""Options of vision-language models: what each does, and which values are refused."""

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
