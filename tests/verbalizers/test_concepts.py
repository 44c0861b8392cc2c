"""Zero-shot tags equal what the model itself computes."""

import pytest
import torch
from transformers import AutoProcessor, CLIPModel, SiglipModel

from lavis.common.errors import ConfigError
from lavis.verbalizers.base import Tools, vocabulary
from lavis.verbalizers.concepts import AttributeTagger, ConceptTagger, DualEncoder, best
from lavis.verbalizers.config import AttributesConfig, ConceptsConfig

WORDS = ["red", "blue", "dog", "cat", "tree"]
TOOLS = Tools("tags", 0, "cpu", lambda config: None)


class Images:
    """A scene in memory."""

    def __init__(self, image, regions=()):
        self.image, self._pixels, self.regions = "x", image, list(regions)
        self.record = {}

    def read_image(self):
        return self._pixels

    def crop(self, region, margin):
        assert margin == 0.1
        return self._pixels.crop(tuple(region.box))


class Region:
    def __init__(self, region_id, box):
        self.region_id, self.box, self.name = region_id, box, ""


def test_concept_scores_equal_clips_own(tiny, image, world):
    folder = tiny("clip")
    config = ConceptsConfig(
        type="concepts", model=folder, vocabularies={"things": str(world / "words.txt")}, top_k=5,
        batch_size=2,
    )  # fmt: skip
    images = [image(seed, (40 + seed, 30)) for seed in range(3)]
    found = ConceptTagger(config, TOOLS).describe([Images(p) for p in images])
    model, processor = CLIPModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    texts = [f"a photo of {word}" for word in WORDS]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits_per_image.softmax(dim=-1)
    for row, descriptors in enumerate(found):
        tags = descriptors["concepts"]["things"]
        scores = {tag["text"]: tag["score"] for tag in tags}
        assert scores == pytest.approx(
            dict(zip(WORDS, expected[row].tolist(), strict=True)), abs=1e-5
        )
        assert [tag["score"] for tag in tags] == sorted(scores.values(), reverse=True)


def test_siglip_scores_are_sigmoids_of_padded_texts(tiny, image):
    folder = tiny("siglip")
    encoder = DualEncoder(ConceptsConfig(type="concepts", model=folder), "cpu")
    images = [image(0), image(1)]
    scores = encoder.scores(encoder.images(images), encoder.texts(WORDS, ["a {}"]))
    model, processor = SiglipModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=[f"a {w}" for w in WORDS], images=images, padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        torch.testing.assert_close(scores, model.eval()(**inputs).logits_per_image.sigmoid())


def test_several_templates_average_unit_vectors(tiny):
    encoder = DualEncoder(ConceptsConfig(type="concepts", model=tiny("clip")), "cpu")
    one, two = encoder.texts(WORDS, ["a {}"]), encoder.texts(WORDS, ["the {}"])
    both = encoder.texts(WORDS, ["a {}", "the {}"])
    torch.testing.assert_close(both, torch.nn.functional.normalize(one + two, dim=-1))


def test_attributes_are_those_of_the_cut_region(tiny, image, world):
    lists = {"colors": str(world / "words.txt")}
    config = AttributesConfig(
        type="attributes", model=tiny("clip"), vocabularies=lists, batch_size=2
    )
    tagger = AttributeTagger(config, TOOLS)
    regions = [Region(0, (0, 0, 20, 20)), Region(4, (10, 5, 60, 40)), Region(7, (3, 3, 9, 30))]
    scenes = [
        Images(image(0), regions[:1]),
        Images(image(1)),
        Images(image(2), regions[1:]),
    ]
    found = [d["regions"] for d in tagger.describe(scenes)]
    assert [list(regions) for regions in found] == [["0"], [], ["4", "7"]]
    alone = tagger.tags([image(2).crop((3, 3, 9, 30))])[0]["colors"]
    assert [{k: tag[k] for k in ("text", "score")} for tag in found[2]["7"]["attributes"]] == alone
    assert found[2]["7"]["attributes"][0]["kind"] == "colors"


def test_low_scores_are_left_out():
    scores = torch.tensor([[0.1, 0.6, 0.3]])
    assert best(scores, ["a", "b", "c"], 3, 0.25) == [
        [{"text": "b", "score": 0.6}, {"text": "c", "score": 0.3}]
    ]


@pytest.mark.parametrize("name", ["places", "objects", "actions", "colors", "materials", "states"])
def test_shipped_vocabularies_are_lists_of_distinct_phrases(name):
    phrases = vocabulary(name)
    assert len(phrases) >= 30 and all(p == p.strip() and "," not in p for p in phrases)
    if name in ("places", "objects", "actions"):
        assert len(phrases) >= 250


def test_an_unknown_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocabulary 'plces': no such file, nor one of actions"):
        vocabulary("plces")


def test_a_model_of_another_kind_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"not a dual encoder such as CLIP|cannot load"):
        DualEncoder(ConceptsConfig(type="concepts", model=tiny("blip2")), "cpu")
