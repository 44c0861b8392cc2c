"""Images whose captions are nearest to a prompt, from lines or parquet."""

import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from painted import paint, shades
from PIL import Image

from lavis.common.errors import DataError
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.build import build_generator
from lavis.generators.config import RetrievalConfig
from lavis.generators.retrieval import CaptionedFolder, EmbeddingIndex, RetrievalGenerator

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

    images = CaptionedFolder(RetrievalConfig(records=str(captioned)))
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
