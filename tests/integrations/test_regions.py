"""A model asked about boxes sees what the data set would show it."""

import json

import pytest
import torch
from PIL import Image
from tiny_vlm import make_vlm

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.common.registry import models
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import GenerativeDatasetConfig
from lavis.integrations.regions import RegionModel, dataset_options
from lavis.processors.region import DrawnRegion

TINY = {
    "model_type": "pretrain", "load_pretrained": False, "image_size": 28, "num_query_token": 4,
    "max_txt_len": 48, "vit": {"embed_dim": 32, "depth": 1, "num_heads": 4},
    "qformer": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48,
    },
}  # fmt: skip
BOXES = [[5, 6, 20, 30], [12.5, 2, 38, 25]]
SECTION = {
    "palette": "distinct",
    "line_width": "auto",
    "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": 28}},
    "text_processor": {"eval": {"name": "blip_unified_vqa", "prompt": "question: "}},
}


@pytest.fixture
def build(language_models):
    def make(arch, **changes):
        torch.manual_seed(0)
        model = models.get(arch)(models.config_class(arch)(**{**TINY, **changes})).eval()
        return RegionModel(model, **dataset_options("unified_vqa_chatgpt", SECTION))

    return make


@pytest.fixture
def image():
    return Image.linear_gradient("L").resize((40, 32)).convert("RGB")


def test_an_answer_sees_the_data_sets_image_and_text(build, image, language_models, tmp_path):
    image.save(tmp_path / "a.png")
    record = {
        "image": "a.png", "region": [7, 3], "region_all": [3, 7],
        "references": {
            "3": {"boxes": [BOXES[1]]}, "7": {"boxes": [BOXES[0]]},
        },
        "question": ["What", "is", [7], "near", [3], "?"], "answer": ["Red"],
    }  # fmt: skip
    (tmp_path / "r.jsonl").write_text(json.dumps(record) + "\n")
    info = {"annotations": {"test": {"storage": [str(tmp_path / "r.jsonl")]}}}
    info["images"] = {"storage": str(tmp_path)}
    dataset = build_dataset(
        "unified_vqa_chatgpt", GenerativeDatasetConfig(build_info=info, **SECTION), "test"
    )
    reader = build("blip2_t5", t5_model=language_models["t5"])
    asked = {}
    generate = reader.model.generate
    reader.model.generate = lambda samples, **kw: asked.update(samples) or generate(samples, **kw)
    answer = reader.answer(image, BOXES, "What is [0] near [1] ?", num_beams=1, max_length=5)
    row = dataset.row(0)
    assert torch.equal(asked["image"][0], dataset.image(row))
    assert asked["text_input"] == [row.text]
    samples = dataset.collate([row], dataset.image(row)[None], [0])
    assert answer == generate(samples, num_beams=1, max_length=5)[0]


def test_ranks_are_the_models_scores(build, image):
    reader = build("blip2", embed_dim=16)
    texts = ["[0] is a dog", "[1] is red", "a cat"]
    ranked = reader.rank(image, BOXES, texts, question="What is true?")
    said = [f"question: what is true? answer: {text}" for text in texts]
    drawn = reader.draw(image, BOXES)
    pixels = dataset_options("unified_vqa_chatgpt", SECTION)["vis_processor"](drawn)[None]
    samples = {"image": pixels, "text_input": said, "image_index": [0, 0, 0]}
    chances = reader.model.predict(samples)["prediction"][:, 1].tolist()
    assert dict(ranked) == pytest.approx(dict(zip(texts, chances, strict=True)))
    assert [score for _, score in ranked] == sorted(chances, reverse=True)
    by_contrast = reader.rank(image, BOXES, texts, question="What is true?", by="itc")
    assert dict(by_contrast) == pytest.approx(
        dict(zip(texts, reader.model.score(samples)["itc"].tolist(), strict=True))
    )


def test_errors_say_what_is_wrong(build, image):
    reader = build("blip2_critic")
    with pytest.raises(DataError, match=r"names \[2\], and there are 2 boxes"):
        reader.rank(image, BOXES, ["[2] sleeps"])
    with pytest.raises(DataError, match="box outside the image"):
        reader.rank(image, [[50, 50, 60, 60]], ["[0] sleeps"])
    with pytest.raises(ConfigError, match="writes no text; use rank"):
        reader.answer(image, BOXES, "Who?")
    with pytest.raises(ConfigError, match="no score by itc"):
        reader.rank(image, BOXES, ["x"], by="itc")


def test_a_run_folder_is_enough(build, image, tmp_path):
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    reader = build("blip2", embed_dim=16)
    section = {**TINY, "arch": "blip2", "embed_dim": 16}
    tree = {"model": section, "datasets": {"unified_vqa_chatgpt_contrastive": SECTION}}
    OmegaConf.save(OmegaConf.create(tree), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="checkpoint_best: neither a checkpoint in"):
        RegionModel.from_run(tmp_path)
    (tmp_path / "checkpoint_best").mkdir()
    whole = {k: v.contiguous() for k, v in reader.model.full_state_dict().items()}
    save_file(whole, tmp_path / "checkpoint_best" / "model.safetensors")
    again = RegionModel.from_run(tmp_path)
    texts = ["[0] is a dog", "a cat"]
    assert dict(again.rank(image, BOXES, texts)) == pytest.approx(
        dict(reader.rank(image, BOXES, texts))
    )


VISION_LANGUAGE = {
    "palette": "distinct",
    "vis_processor": {"eval": {"name": "vlm_image", "shows": "marks"}},
}


@pytest.fixture(scope="module")
def vlm_reader(tmp_path_factory):
    folder = make_vlm("qwen2_5_vl", tmp_path_factory.mktemp("vlm"))
    config = models.config_class("vlm_student")(name=folder, max_pixels=10000)
    model = models.get("vlm_student").from_config(config).eval()
    return RegionModel(model, **dataset_options("unified_vqa_chatgpt", VISION_LANGUAGE))


def test_a_vision_language_model_answers_by_the_same_call(vlm_reader, image):
    asked = {}
    generate = vlm_reader.model.generate
    vlm_reader.model.generate = lambda s, **kw: asked.update(s) or generate(s, **kw)
    answers = {
        vlm_reader.answer(image, BOXES, question, max_length=5)
        for question in ("What is [0] near [1]?", "What is [0] near [1]? Answer:")
    }
    vlm_reader.model.generate = generate
    assert len(answers) == 1 and answers != {""}
    assert asked["parts"][0]["question"] == "What is [0] near [1]?"
    assert list(asked["region_words"][0]) == ["the region marked 0", "the region marked 1"]
    (view,) = asked["views"][0]
    assert view.shape == (3, 32, 40)  # at its own size, with numbers on it
    regions = [DrawnRegion(k, tuple(box)) for k, box in enumerate(BOXES)]
    shown = vlm_reader._vis_processor(image, regions=regions, palette="distinct", width=2)
    assert torch.equal(view, shown.views[0])


def test_a_vision_language_model_ranks_by_its_verdict(vlm_reader, image):
    texts = ["a dog", "red"]
    ranked = dict(vlm_reader.rank(image, BOXES, texts, question="What is [0]?"))
    parts = [{"question": "What is [0]?", "answer": text} for text in texts]
    regions = [DrawnRegion(k, tuple(box)) for k, box in enumerate(BOXES)]
    shown = vlm_reader._vis_processor(image, regions=regions, palette="distinct", width=2)
    samples = {"views": [shown.views], "region_words": [shown.regions], "parts": parts}
    expected = vlm_reader.model.predict({**samples, "image_index": [0, 0]})["prediction"][:, 1]
    assert ranked == pytest.approx(dict(zip(texts, expected.tolist(), strict=True)), abs=1e-5)


def test_a_mark_of_the_model_is_refused(vlm_reader, image):
    with pytest.raises(RecordError, match="holds a mark of the model"):
        vlm_reader.answer(image, BOXES, "What is <|image_pad|>?")
    with pytest.raises(DataError, match="holds a mark of the model"):
        vlm_reader.rank(image, BOXES, ["<|image_pad|>"], question="What?")
