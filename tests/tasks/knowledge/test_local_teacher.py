"""A teacher that sees on this machine: a tiny random model, from the command to the page."""

import json

import pytest
from generation_run import GOOD, items, lines, run
from tiny_vlm import make_vlm, skip_absent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    skip_absent("qwen2_5_vl")
    return make_vlm("qwen2_5_vl", tmp_path_factory.mktemp("vlm"))


def local(tiny, tmp_path, **more):
    return {"backend": "transformers", "model": tiny, "device": "cpu", "batch_size": 3,
            "cache_dir": str(tmp_path / "cache"), **more}  # fmt: skip


def test_a_tiny_model_writes_nothing_of_use_and_every_request_says_why(tiny, seen, tmp_path):
    llm = local(tiny, tmp_path)
    options = {"max_tokens": 8, "repair": False, "sees": ["text", "image", "crops"]}
    assert run(seen(images=3, llm=llm, **options)) == 1
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["records"], summary["rejected"], summary["left_for_next_start"]) == (0, 3, 0)
    rejects = lines(tmp_path / "out/rejects.jsonl")
    assert all(one["reason"] for one in rejects)
    assert summary["spent"]["prompt_tokens"] > 3 * 700  # texts, and images by the model's count
    assert "data:image/jpeg" in (tmp_path / "out/report.html").read_text()


def test_a_tiny_model_that_keeps_to_the_form_writes_a_corpus(tiny, seen, tmp_path, monkeypatch):
    from lavis.llm.local import TransformersBackend

    prompts = []

    def answer(self, ids, prompt):
        prompts.append(prompt)
        return items(GOOD, ("Why is [9] here?", *GOOD[1:])), ""

    monkeypatch.setattr(TransformersBackend, "_answer", answer)
    monkeypatch.setattr(TransformersBackend, "_ends", lambda self: set(range(10**6)))
    path = seen(images=3, llm=local(tiny, tmp_path), max_tokens=4, sees=["image"])
    assert run(path) == 0
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 3
    assert {one["reason"] for one in lines(tmp_path / "out/rejects.jsonl")} == {
        "unknown region id: 9"
    }
    assert all("<|vision_start|><|image_pad|><|vision_end|>" in prompt for prompt in prompts)
    count = len(prompts)
    (tmp_path / "out/journal").rename(tmp_path / "lost")
    assert run(path) == 0 and len(prompts) == count  # replies are stored


def test_a_model_of_texts_refuses_images_in_words(seen, tmp_path, tmp_path_factory):
    from tiny_vlm import make_tokenizer
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder = tmp_path_factory.mktemp("lm")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(folder)
    assert run(seen(images=1, llm=local(str(folder), tmp_path))) == 1
    (reject,) = lines(tmp_path / "out/rejects.jsonl")
    assert "reads no images" in reject["reason"]
