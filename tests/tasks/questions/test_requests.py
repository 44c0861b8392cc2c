"""The model says how it reads, and no end token stands where something is read."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, BertTokenizerFast, GPT2Config, GPT2LMHeadModel

from lavis.common.errors import ConfigError, RecordError
from lavis.common.pretrained import Specials, check_vocabulary, load_tokenizer
from lavis.datasets.benchmarks.question import Question
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from lavis.tasks.questions.requests import QuestionTokenizer
from projects.checks.golden import preset

ROOT = Path(__file__).resolve().parents[3]
SET = ROOT / "tests" / "fixtures" / "vlmig" / "eval"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "color", "is", "milk", "a", "green",
         "white", "?", ":", "answer", "of", "the", "."]  # fmt: skip


@pytest.fixture
def bert_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS))
    return BertTokenizerFast(vocab=str(path))


def closed(tokenizer):
    """Return a tokenizer that puts an end token behind every text."""
    end, number = tokenizer.eos_token, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, number)]
    )
    assert tokenizer("a text").input_ids[-1] == number
    return tokenizer


def question(kind, prompts, options=()):
    return Question(
        question_id="0", kind=kind, prompts=prompts, gold="", title="", image_text="x",
        image_texts=(), options=options, forms="given",
    )  # fmt: skip


def reader(*, masked, vocabulary=10**6):
    return SimpleNamespace(fills_masks=masked, vocabulary=vocabulary)


def test_gpt2_with_a_bert_tokenizer_is_read_causally(tmp_path, bert_words):
    folder = tmp_path / "llm"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(folder)
    bert_words.save_pretrained(folder)
    (tmp_path / "color.csv").write_text("category,question,answer\nx,what color is milk ?,white\n")
    dataset = preset.make_dataset("imagenetvc", tmp_path, subsets=["color"])
    section = LateFusionConfig(llm=str(folder), vision=VisionConfig(name=None, width=4))
    model = LateFusion.from_config(section).eval()
    task = preset.make_task(preset.make_config(folder, tmp_path, num_images=0))
    answers = preset.answer(task, model, dataset)
    text = dataset.question(0).prompts[0]
    ids = bert_words(text).input_ids[:-1]  # without [SEP], and without a [MASK]
    white = bert_words.convert_tokens_to_ids("white")
    expected = model.llm(input_ids=torch.tensor([ids])).logits[0, -1].softmax(dim=-1)[white]
    found = answers.chances["text"][0, 0][white]
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_an_end_token_of_the_tokenizer_shifts_no_read():
    plain = QuestionTokenizer(AutoTokenizer.from_pretrained(SET))
    ending = QuestionTokenizer(closed(AutoTokenizer.from_pretrained(SET)))
    for texts in (plain, ending):
        texts.set_model(reader(masked=False))
    for kind, options in (("next_word", ("green", "white")), ("choice", ()), ("generate", ())):
        asked = question(kind, ("the color of milk is", "milk is green"), options)
        assert ending.requests(asked, 0) == plain.requests(asked, 0)


def test_the_model_decides_whether_a_mask_is_read(bert_words):
    texts = QuestionTokenizer(bert_words)
    asked = question("next_word", ("the color of milk is",), ("green", "white"))
    with pytest.raises(AssertionError, match="set_model"):
        texts.requests(asked, 0)
    texts.set_model(reader(masked=False))
    (causal,) = texts.requests(asked, 0)
    assert bert_words.convert_ids_to_tokens(causal.ids) == [
        "[CLS]", "the", "color", "of", "milk", "is",
    ]  # fmt: skip
    assert causal.targets[0][0] == 5
    texts.set_model(reader(masked=True))
    (masked,) = texts.requests(asked, 0)
    assert bert_words.convert_ids_to_tokens(masked.ids)[-2:] == ["[MASK]", "[SEP]"]
    assert masked.targets[0][0] == 6


def test_all_start_tokens_stay_where_a_text_is_cut():
    """A text is cut behind what the tokenizer puts in front, be it one token, two, or none."""
    start = "<|endoftext|>"
    for count in (0, 1, 2):
        tokenizer = AutoTokenizer.from_pretrained(SET)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{start} " * count + "$A", special_tokens=[(start, tokenizer.bos_token_id)]
        )
        text = "the color of milk is white"
        words = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        texts = QuestionTokenizer(tokenizer, count + 2, cut=True)
        texts.set_model(reader(masked=False))
        (ask,) = texts.requests(question("choice", (text,)), 0)
        assert ask.ids == (0,) * count + tuple(words.input_ids[-2:])
        ends = [0] * count + [end for _, end in words.offset_mapping[-2:]]
        assert ask.ends == tuple(ends[1:])
        (open_text,) = texts.requests(question("generate", (text,)), 0)
        assert open_text.ids == ask.ids


def test_a_mask_is_never_cut_away(bert_words):
    asked = question("next_word", ("the color of milk is",), ("green", "white"))
    for most, refused in ((2, True), (3, False)):
        texts = QuestionTokenizer(bert_words, most, cut=True)
        texts.set_model(reader(masked=True))
        if refused:
            with pytest.raises(RecordError, match=r"8 tokens, run\.max_tokens is 2"):
                texts.requests(asked, 0)
            continue
        (ask,) = texts.requests(asked, 0)
        assert bert_words.convert_ids_to_tokens(ask.ids) == ["[CLS]", "[MASK]", "[SEP]"]
        assert ask.targets[0][0] == 1


def test_specials_around_a_text(bert_words):
    assert Specials.of(bert_words) == Specials((2,), (3,))
    end = closed(AutoTokenizer.from_pretrained(SET))
    assert Specials.of(end) == Specials((), (end.eos_token_id,))


def test_tokens_beyond_the_models_table_are_refused(bert_words):
    with pytest.raises(ConfigError, match=r"beyond the 17 .*\(its largest is 17\)"):
        check_vocabulary(bert_words, reader(masked=False, vocabulary=17))
    check_vocabulary(bert_words, reader(masked=False, vocabulary=18))
    bert_words.add_tokens(["<image>"])
    check_vocabulary(bert_words, reader(masked=False, vocabulary=18))
    texts = QuestionTokenizer(bert_words)
    texts.set_model(reader(masked=False, vocabulary=18))
    with pytest.raises(RecordError, match="token '<image>' has the number 18"):
        texts.requests(question("generate", ("milk <image> is",)), 0)
    bert_words.add_special_tokens({"pad_token": "<pad>"})
    with pytest.raises(ConfigError, match="its pad token is 19"):
        check_vocabulary(bert_words, reader(masked=False, vocabulary=18))


def test_a_model_that_fills_masks_needs_a_mask_token():
    tokenizer = AutoTokenizer.from_pretrained(SET)
    with pytest.raises(ConfigError, match="has no mask token, and the language model fills masks"):
        check_vocabulary(tokenizer, reader(masked=True))


def test_a_folder_without_tokenizer_files_is_refused(tmp_path):
    shutil.copy(SET / "config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"run\.tokenizer: .*(no tokenizer files|cannot load)"):
        load_tokenizer(str(tmp_path), "run.tokenizer")
