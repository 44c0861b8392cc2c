"""Blocks of wikitext: cut from one concatenation, kept once, each with a sentence to draw."""

import json
import multiprocessing
import pickle
import random
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lavis.common.errors import ConfigError, DataError
from lavis.common.storage.cache import Cache
from lavis.common.text import split_sentences
from lavis.datasets.base import TrainingView
from lavis.datasets.builders import build_dataset
from lavis.datasets.captions.config import WikiConfig
from lavis.datasets.captions.token_blocks import find_corpus, read_lines, write_blocks
from lavis.datasets.rows import RejectedRow, row_random
from lavis.generators.base import ImageGenerator, ImageRequest
from lavis.generators.store import ImageStore

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "home", ".", "=", "@-@", "1", "2"]
BLOCK = 12


def make_tokenizer(folder, *, start=True, words=WORDS):
    """Save a tokenizer of whole words that puts `<s>` in front of each line."""
    special = ["<s>", "<pad>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if start:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return fast


def make_lines(count=300, seed=0):
    """Return lines as wikitext has them: headings, blank lines, paragraphs of sentences."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        if number % 3 == 0:
            lines.append(" = the cat = ")
        elif number % 3 == 1:
            lines.append(" ")
        else:
            said = (" ".join(dice.choices(WORDS[:9], k=dice.randint(2, 6))) for _ in range(3))
            lines.append(" " + " . ".join(said) + " . ")
    return lines


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "wikitext-103-raw"
    folder.mkdir()
    for split, seed in (("train", 0), ("valid", 1), ("test", 2)):
        lines = make_lines(seed=seed)
        (folder / f"wiki.{split}.raw").write_text("\n".join(lines) + "\n", encoding="utf-8")
    make_tokenizer(tmp_path / "tokenizer")
    return folder


def opened(corpus, split="train", *, storage=(), tokenizer="tokenizer", **options):
    processor = {"name": "clip_image", "image_size": 16}
    settings = {"block_size": BLOCK, **options}
    config = WikiConfig(
        tokenizer=str(corpus.parent / tokenizer),
        data_dir=str(corpus),
        build_info={"annotations": {split: {"storage": list(storage)}}},
        vis_processor={"train": processor, "eval": processor},
        cache_dir=str(corpus.parent / "cache"),
        **settings,
    )
    return build_dataset("wiki", config, split)


def concatenated(tokenizer, lines):
    """Return the tokens of all lines, one line at a time."""
    texts = [f"{line}\n" if line.strip() else "" for line in lines]
    return [token for text in texts for token in tokenizer(text)["input_ids"]]


def blocks_of(dataset):
    return [list(dataset.row(i).targets["token_ids"]) for i in range(len(dataset))]


def test_blocks_are_the_concatenation_cut(corpus):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(corpus.parent / "tokenizer")
    for split, seed in (("train", 0), ("valid", 1)):
        dataset = opened(corpus, split)
        tokens = concatenated(tokenizer, make_lines(seed=seed))
        whole = len(tokens) // BLOCK
        expected = [tokens[i * BLOCK : (i + 1) * BLOCK] for i in range(whole)]
        assert len(tokens) % BLOCK and blocks_of(dataset) == expected
        assert tokens.count(0) == 300  # every line, blank ones too, begins with <s>


def test_tables_of_the_hub_give_the_same_blocks_as_text(corpus, tmp_path):
    lines = list(read_lines(str(corpus / "wiki.train.raw"), "text"))
    assert lines[:3] == [" = the cat = \n", "", lines[2]] and lines[2].endswith(" . \n")
    table = pa.table({"text": lines})
    folder = tmp_path / "wikitext-103-raw-v1"
    folder.mkdir()
    pq.write_table(table[:100], folder / "train-00000-of-00002.parquet")
    pq.write_table(table[100:], folder / "train-00001-of-00002.parquet")
    pq.write_table(table[:10], folder / "validation-00000-of-00001.parquet")
    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    with (
        pa.OSFile(str(saved / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as stream,
    ):
        stream.write_table(table, max_chunksize=7)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    jsonl = tmp_path / "lines.jsonl"
    jsonl.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    expected = blocks_of(opened(corpus))
    assert blocks_of(opened(folder)) == expected
    assert blocks_of(opened(saved.parent)) == expected
    assert blocks_of(opened(corpus, storage=[str(jsonl)])) == expected
    assert len(opened(folder, "valid")) < len(expected)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), min_size=1),
    size=st.integers(1, 7),
)
def test_no_token_is_lost_or_moved(tmp_path_factory, lines, size):
    path = tmp_path_factory.mktemp("blocks") / "b"
    tokens = [token for line in lines for token in line]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lavis.datasets.captions.token_blocks._LINES", 2)

        def tokenize(batch):
            return [lines[int(number)] for number in batch]

        numbers = (str(number) for number in range(len(lines)))
        if len(tokens) < size:
            with pytest.raises(DataError, match="which fill no block"):
                write_blocks(path, numbers, tokenize, size)
            return
        write_blocks(path, numbers, tokenize, size)
    kept = len(tokens) // size * size
    assert np.fromfile(path, "<u4").tolist() == tokens[:kept]


def test_nothing_stale_is_read(corpus):
    cache = corpus.parent / "cache"

    def files():
        return sorted(p.name for p in cache.glob("*.tokens"))

    first = blocks_of(opened(corpus))
    assert blocks_of(opened(corpus)) == first and len(files()) == 1
    assert len(opened(corpus, block_size=7).row(0).targets["token_ids"]) == 7
    assert len(files()) == 2
    make_tokenizer(corpus.parent / "tokenizer", start=False)  # another one under the same name
    assert blocks_of(opened(corpus)) != first and len(files()) == 3
    make_tokenizer(corpus.parent / "tokenizer")
    (corpus / "wiki.train.raw").write_text("\n".join(make_lines(seed=9)))
    assert blocks_of(opened(corpus)) != first and len(files()) == 4
    assert not list(cache.glob("*.tmp"))


def _blocks(corpus, start, found):
    start.wait()
    dataset = opened(corpus)
    found.put((len(dataset), dataset.blocks.path.stat().st_ino))


def test_processes_that_come_at_once_build_one_file(corpus):
    expected = len(opened(corpus))
    for path in (corpus.parent / "cache").iterdir():
        path.unlink()
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    processes = [context.Process(target=_blocks, args=(corpus, start, found)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    seen = {found.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(seen) == 1 and seen.pop()[0] == expected


def test_a_killed_build_is_done_again(corpus):  # storage's own tests hold that it is swept away
    opened(corpus)
    cache = corpus.parent / "cache"
    (built,) = cache.glob("*.tokens")
    content = built.read_bytes()
    built.unlink()
    (cache / f".{built.name}.00000000-1-1-00000000.part").write_bytes(content[:100])
    opened(corpus)
    assert built.read_bytes() == content


def test_the_sentence_is_a_function_of_seed_epoch_and_row(corpus):
    dataset = opened(corpus)
    view = TrainingView(opened(corpus, with_images=False), seed=5)
    by_epoch = {}
    for epoch in (0, 1, 0):
        wanted = [request[0] for request in dataset.image_requests(epoch, 5)]
        view.set_epoch(epoch)
        assert [view[i][0].text for i in reversed(range(len(view)))][::-1] == wanted
        assert by_epoch.setdefault(epoch, wanted) == wanted
    assert by_epoch[0] != by_epoch[1]
    assert [r[0] for r in dataset.image_requests(0, 6)] != by_epoch[0]
    drawn = set()
    sentences = split_sentences(
        dataset.tokenizer.decode(blocks_of(dataset)[4], skip_special_tokens=True)
    )
    for epoch in range(60):
        row = dataset.row(4, row_random(0, epoch, 4))
        assert row.text == row.fields["picture_prompt"] and "<s>" not in row.text
        drawn.add(row.text)
    assert drawn == set(sentences) and len(drawn) > 1


def test_a_block_without_words_is_drawn_as_random(corpus):
    (corpus / "wiki.train.raw").write_text("\n" * 50)
    assert opened(corpus).row(0).text == "random"


class Drawn(ImageGenerator):
    """Images of one colour, which the prompt chooses."""

    name = "drawn"

    @classmethod
    def from_config(cls, config):
        return cls()

    def fingerprint(self):
        return {"name": "drawn"}

    def generate(self, requests):
        return [Image.new("RGB", (20, 16), (len(r.prompt) % 256, r.seed, 7)) for r in requests]


def test_images_come_from_the_store_and_batches_need_no_padding(corpus, tmp_path):
    dataset = opened(corpus, max_elements=9)
    view = TrainingView(dataset, seed=1)
    with pytest.raises(ConfigError, match=r"configure run\.images"):
        view[0]
    plain = view.dataset.row(0).image_key
    store = ImageStore(Cache(tmp_path / "pictures"), Drawn())
    dataset.use_images(store, seed=3)
    assert dataset.row(0).image_key != plain
    assert isinstance(view[0], RejectedRow) and "is not stored" in view[0].reason
    requests = [ImageRequest(*r) for r in dataset.image_requests(0, 1)]
    store.fill(requests, progress=False)
    loader = DataLoader(view, batch_size=9, num_workers=1, collate_fn=view.collate)
    (samples,) = list(loader)
    assert samples["rejects"] == []
    assert {len(ids) for ids in samples["token_ids"]} == {BLOCK}
    assert samples["token_ids"] == blocks_of(dataset)
    assert samples["text_input"] == [r.prompt for r in requests]
    distinct = list(dict.fromkeys(r.prompt for r in requests))
    assert samples["image"].shape == (len(distinct), 3, 16, 16)
    for text, place in zip(samples["text_input"], samples["image_index"].tolist(), strict=True):
        pixel = Image.new("RGB", (16, 16), (len(text) % 256, 3, 7))
        assert torch.equal(samples["image"][place], dataset.vis_processor(pixel))


def test_rows_travel_to_other_processes_and_can_be_capped(corpus):
    dataset = opened(corpus)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.row(7) == dataset.row(7)
    few = opened(corpus, max_elements=5, shuffle_data=True)
    order = np.random.default_rng(42).permutation(len(dataset))[:5]
    every = blocks_of(dataset)
    assert blocks_of(few) == [every[i] for i in order]
    assert few.source(0)["row"] == order[0]
    assert few.fingerprint() != dataset.fingerprint()


def test_what_is_missing_is_named(corpus, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it should hold wiki\.train\.raw"):
        find_corpus(str(tmp_path / "empty"), "train")
    with pytest.raises(ConfigError, match=r"datasets\.wiki\.tokenizer: cannot load"):
        opened(corpus, tokenizer="gone")
    pq.write_table(pa.table({"line": ["a"]}), tmp_path / "empty" / "train.parquet")
    with pytest.raises(DataError, match=r"no column 'text' \(found line\)"):
        opened(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "datasets", None)
    processor = {"name": "clip_image"}
    config = WikiConfig(
        tokenizer=str(corpus.parent / "tokenizer"),
        build_info={"annotations": {"train": {"storage": []}}},
        vis_processor={"train": processor},
    )
    with pytest.raises((ConfigError, DataError), match=r"datasets\.wiki\.data_dir"):
        build_dataset("wiki", config, "train")
