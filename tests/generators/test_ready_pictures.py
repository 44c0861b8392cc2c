"""Folders and retrieval: which file a request gets, and what is said where there is none."""

import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lavis.common.errors import DataError
from lavis.common.storage.cache import Cache
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.build import build_generator
from lavis.generators.captions import CaptionedImages
from lavis.generators.config import RetrievalConfig
from lavis.generators.folder import prompt_hash, prompt_name
from lavis.generators.retrieval import EmbeddingIndex, RetrievalGenerator
from lavis.generators.store import ImageStore


def paint(folder, name, shade):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(path)
    return name


def shades(images):
    return [image.getpixel((0, 0))[0] for image in images]


def test_files_are_found_by_the_prompts_name_or_hash(tmp_path):
    paint(tmp_path, "a_red_cat-0.png", 10)
    paint(tmp_path, "a_red_cat-10.png", 30)
    paint(tmp_path, "a_red_cat-2.png", 20)
    paint(tmp_path, f"{prompt_hash('A dog!')}.png", 40)
    paint(tmp_path, "a_hen/b.png", 60)
    paint(tmp_path, "a_hen/a.png", 50)
    generator = build_generator("folder", {"root": str(tmp_path)})
    prompts = ["A red cat.", "A red cat.", "A red cat.", "A dog!", "a hen", "a hen"]
    assert shades(generator.generate(image_requests(prompts))) == [10, 20, 30, 40, 50, 60]
    assert prompt_name("A  red-cat, no. 3!") == "a_red_cat_no_3"


def test_a_manifest_names_the_files_of_a_prompt(tmp_path):
    paint(tmp_path, "x/1.png", 1)
    paint(tmp_path, "x/2.png", 2)
    lines = [{"prompt": "a cat", "images": ["x/2.png", "x/1.png"]}, {"prompt": "b", "image": "x"}]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    options = {"root": str(tmp_path), "manifest": str(manifest)}
    generator = build_generator("folder", options)
    assert shades(generator.generate(image_requests(["a cat", "a cat"]))) == [2, 1]
    with pytest.raises(DataError, match="2 images of the prompt 'a cat', number 3 is wanted"):
        generator.generate([ImageRequest("a cat", 2)])
    repeating = build_generator("folder", {**options, "missing": "repeat"})
    assert shades(repeating.generate([ImageRequest("a cat", 2)])) == [2]
    with pytest.raises(DataError, match=r"0 images of the prompt 'c'.*add it to .*manifest"):
        repeating.generate([ImageRequest("c")])
    manifest.write_text('{"prompt": 3}')
    with pytest.raises(DataError, match=r'line 1: write \{"prompt"'):
        build_generator("folder", options)


def test_what_a_folder_cannot_give_is_said(tmp_path):
    with pytest.raises(DataError, match="folder generator, root: no such folder"):
        build_generator("folder", {"root": str(tmp_path / "none")})
    outside = tmp_path / "outside.png"
    Image.new("RGB", (2, 2)).save(outside)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(outside)
    (root / "broken.png").write_bytes(b"\x89PNG no")
    generator = build_generator("folder", {"root": str(root)})
    with pytest.raises(DataError, match=r"link\.png: leads out of"):
        generator.generate([ImageRequest("link")])
    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image"):
        generator.generate([ImageRequest("broken")])
    with pytest.raises(DataError, match=rf"add {prompt_hash('a cow')}-0\.png"):
        generator.generate([ImageRequest("a cow")])


def test_a_replaced_file_is_another_image(tmp_path):
    paint(tmp_path, "cat.png", 1)
    store = ImageStore(
        Cache(tmp_path / "cache"), build_generator("folder", {"root": str(tmp_path)})
    )
    assert shades(store.pictures([ImageRequest("cat", 0, 1)])) == [1]
    Image.new("RGB", (9, 9), (7, 7, 7)).save(tmp_path / "cat.png")
    store = ImageStore(store.cache, build_generator("folder", {"root": str(tmp_path)}))
    assert shades(store.pictures([ImageRequest("cat", 0, 2)])) == [7]


CAPTIONS = ["a cat", "a cat on a mat", "a dog", "the mat", "a cat"]


@pytest.fixture
def captioned(tmp_path):
    lines = []
    for row, caption in enumerate(CAPTIONS):
        name = paint(tmp_path, f"{row}.png", 10 * row)
        lines.append({"image": name, "caption": caption})
    lines.append({"image": "none.png", "caption": ""})
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_images_are_ranked_by_tfidf(captioned):
    generator = build_generator("retrieval", {"records": str(captioned)})
    idf = {
        word: 1 + math.log(6 / (1 + df))
        for word, df in {"a": 4, "cat": 3, "on": 1, "mat": 2, "dog": 1, "the": 1}.items()
    }
    # "a" stands twice in "a cat on a mat": 1 + ln 2 times its weight.
    long = [(1 + math.log(2)) * idf["a"], idf["cat"], idf["on"], idf["mat"]]
    expected = idf["mat"] / math.sqrt(sum(w * w for w in long))
    found = generator.index.similarity(["mat"])[0]
    assert found[0] == found[2] == found[4] == 0
    assert found[1] == pytest.approx(expected)
    assert found[3] == pytest.approx(idf["mat"] / math.hypot(idf["mat"], idf["the"]))
    # Ties keep the order of the records; a row without caption is never found.
    assert generator.nearest(["mat", "cat", "unknown"], 9) == [
        [3, 1, 0, 2, 4],
        [0, 4, 1, 2, 3],
        [0, 1, 2, 3, 4],
    ]
    images = generator.generate(image_requests(["cat", "mat", "cat", "cat"]))
    assert shades(images) == [0, 30, 40, 10]
    assert shades(generator.generate([ImageRequest("cat", 6)])) == [40]  # around again


def test_embeddings_may_rank_instead(captioned):
    vectors = {
        "a cat": (1, 0),
        "a cat on a mat": (0.6, 0.8),
        "a dog": (0, 1),
        "the mat": (0.8, 0.6),
    }
    calls = []

    def embed(texts):
        calls.append(len(texts))
        return np.array([vectors[text] for text in texts], dtype=np.float32)

    images = CaptionedImages(RetrievalConfig(records=str(captioned)))
    index = EmbeddingIndex(images.captions, embed, "toy", batch_size=2)
    assert calls == [2, 2, 1]
    generator = RetrievalGenerator(images, index)
    assert generator.nearest(["a dog"], 3) == [[2, 1, 3]]
    words = build_generator("retrieval", {"records": str(captioned)})
    assert generator.fingerprint() != words.fingerprint()


def test_parquet_may_hold_the_images(tmp_path):
    rows = []
    for shade in range(5):
        buffer = io.BytesIO()
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    captions = [["a cat", "the sun"], ["a dog"], ["a hen"], [], ["a cow", "a dog here"]]
    path = tmp_path / "data.parquet"
    table = pa.table({"picture": rows, "texts": captions})
    pq.write_table(table, path, row_group_size=2)
    options = {"records": str(path), "image_field": "picture", "caption_field": "texts"}
    generator = build_generator("retrieval", options)
    assert shades(generator.generate(image_requests(["sun", "dog", "dog", "cow"]))) == [
        0,
        1,
        4,
        4,
    ]
    with pytest.raises(DataError, match="no column 'text'; did you mean 'texts'"):
        build_generator("retrieval", {**options, "caption_field": "text"})


def test_wrong_records_are_named(tmp_path):
    path = tmp_path / "captions.jsonl"
    with pytest.raises(DataError, match="records: no such file"):
        build_generator("retrieval", {"records": str(path)})
    path.write_text('{"image": "a.png", "captions": "x"}')
    with pytest.raises(DataError, match="line 1: no 'caption'; did you mean 'captions'"):
        build_generator("retrieval", {"records": str(path)})
    path.write_text('{"image": "a.png", "caption": ""}')
    with pytest.raises(DataError, match="no row has a text in 'caption'"):
        build_generator("retrieval", {"records": str(path)})
    path.write_text("[1]")
    with pytest.raises(DataError, match="line 1: a JSON object was expected"):
        build_generator("retrieval", {"records": str(path)})
    path.write_text('{"image": "../a.png", "caption": "x"}')
    generator = build_generator("retrieval", {"records": str(path)})
    with pytest.raises(DataError, match="leads out of"):
        generator.generate([ImageRequest("x")])
