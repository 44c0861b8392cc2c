"""The generative student's data: prefixes in training, question and answer in evaluation."""

import random

import pytest
import torch

from lavis.common.errors import RecordError
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import GenerativeDatasetConfig


@pytest.fixture
def opened(lck, images):
    def build(records, split="test", **options):
        path = lck.write(images / f"{split}.jsonl", records)
        config = GenerativeDatasetConfig(
            data_type="csv",
            build_info={
                "annotations": {split: {"storage": [path]}},
                "csv": {"storage": str(images)},
            },
            vis_processor={
                k: {"name": "blip_image_eval", "image_size": 16} for k in ("train", "eval")
            },
            text_processor={
                k: {"name": "blip_unified_vqa", "prompt": "question: "} for k in ("train", "eval")
            },
            **options,
        )
        return build_dataset("unified_vqa_chatgpt", config, split)

    return build


def test_evaluation_asks_the_question_and_wants_the_answer(opened, lck):
    row = opened([lck.record()]).row(0, random.Random(0))
    assert row.text == "question: what is [0] ? answer:"
    assert row.targets["text_output"] == "near [1] . rationale: i see [0] , [1] ."
    assert row.fields == {
        "index": 0,
        "instance": "test-0",
        "text_output": "near [1] . rationale: i see [0] , [1] .",
    }
    assert row.parts[0]["question"] == "What is [0] ?"  # as it stands, for models that chat
    assert row.parts[0]["answer"].startswith("Near [1] . Rationale: ")
    assert [region.region_id for region in row.drawing.regions] == [3, 1]
    short = opened([lck.record()], include_rationale=False).row(0)
    assert short.targets["text_output"] == "near [1] ."


def test_training_cuts_in_the_first_half_and_loses_nothing(opened, lck):
    dataset = opened([lck.record()], split="train")
    seen, shown = set(), set()
    for seed in range(200):
        row = dataset.row(0, random.Random(seed))
        ids = [region.region_id for region in row.drawing.regions]
        shown.add(frozenset(ids))
        whole = "question: what is [{}] ? answer: near [{}] . rationale: i see [{}] , [{}] ."
        three, one = ids.index(3), ids.index(1)
        assert f"{row.text} {row.targets['text_output']}" == whole.format(three, one, three, one)
        seen.add(len(row.text.split()) - 1)  # the prompt is one word
    assert seen == set(range(1, 8))  # of 15 words
    assert shown == {frozenset({1, 3}), frozenset({1, 2, 3})}


def test_training_may_cut_behind_the_question(opened, lck):
    dataset = opened([lck.record()], split="train", split_at="question")
    for seed in range(5):
        assert dataset.row(0, random.Random(seed)).text.endswith("? answer:")


def test_ready_parts_keep_their_cut_and_one_prompt(opened, lck):
    parts = {"text_input": ["Look", "at", [3]], "text_output": ["A", "Dog"]}
    record = lck.record(question=..., answer=..., rationale=..., **parts)
    for split in ("train", "test"):
        row = opened([record], split=split).row(0)
        assert row.text == "question: look at [0]"
        assert row.targets["text_output"] == "a dog"


def test_a_text_of_one_word_is_set_aside(opened, lck):
    record = lck.record(question=..., answer=..., rationale=..., full_text_input=["Dog"])
    with pytest.raises(RecordError, match="text too short: 'Dog' cannot be cut in two"):
        opened([record], split="train").row(0, random.Random(0))


def test_a_batch_has_inputs_and_outputs_of_each_image(opened, lck):
    dataset = opened([lck.record(0), lck.record(1, answer=["Far"])])
    rows = [dataset.row(i) for i in range(2)]
    assert rows[0].image_key == rows[1].image_key
    samples = dataset.collate(rows, torch.zeros(1, 3, 16, 16), [0, 0])
    assert samples["image_index"].tolist() == [0, 0]
    assert [text.split()[0] for text in samples["text_output"]] == ["near", "far"]
    assert samples["text_input"] == ["question: what is [0] ? answer:"] * 2


def test_an_empty_rationale_leaves_its_word(opened, lck):
    row = opened([lck.record(rationale=[])]).row(0)
    assert row.targets["text_output"] == "near [1] . rationale:"
