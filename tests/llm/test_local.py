"""A local causal model: random streams and limits by request, replies stored as any other."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from lavis.llm.base import ChatRequest, image_part
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import read_totals
from lavis.llm.money.ledger_file import Totals

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<model>"

STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    path = tmp_path_factory.mktemp("gemma")
    letters = list(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<eos>", *sorted(letters)]
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(path)
    return path


def ask(text, **more):
    return ChatRequest(text, [{"role": "user", "content": text}], **{"max_tokens": 8, **more})


def complete(folder, tmp_path, requests, **more):
    node = {"backend": "transformers", "model": str(folder), "cache_dir": str(tmp_path / "cache")}
    with build_client(read_llm(node | {"device": "cpu", **more}), tmp_path / "state") as client:
        return {r.key: r for r in client.complete(requests)}, client.cached


def test_a_reply_does_not_depend_on_its_batch(folder, tmp_path):
    requests = [ask("a"), ask("a longer text", max_tokens=5), ask("b", temperature=0.0)]
    together, _ = complete(folder, tmp_path / "1", requests, batch_size=3)
    alone, _ = complete(folder, tmp_path / "2", requests, batch_size=1)
    assert {k: r.text for k, r in together.items()} == {k: r.text for k, r in alone.items()}
    assert any(len(r.text) > 2 for r in together.values())
    assert together["a longer text"].completion_tokens <= 5
    assert together["a"].prompt_tokens == 3  # the letter, and two ends of line
    assert read_totals(tmp_path / "1" / "state").requests == 3


def test_whole_replies_are_kept_and_cut_ones_are_written_again(folder, tmp_path):
    ends = tmp_path / "ends"
    shutil.copytree(folder, ends)
    ids = list(range(1, 60))  # so that some replies end by themselves
    (ends / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    requests = [ask(f"text {n}", max_tokens=4) for n in range(8)]
    first, _ = complete(ends, tmp_path, requests)
    whole = [r for r in first.values() if r.finish_reason == "stop" and r.ok]
    cut = [r for r in first.values() if r.is_cut and r.text]
    assert whole and cut
    again, cached = complete(ends, tmp_path, requests)
    assert cached == len(whole)
    assert {k: r.text for k, r in again.items()} == {k: r.text for k, r in first.items()}


def test_seeds_make_other_samples_and_temperature_0_the_likeliest(folder, tmp_path):
    requests = [
        ChatRequest(f"{t}{s}", [{"role": "user", "content": "x"}], 8, temperature=t, seed=s)
        for t in (0.0, 1.0)
        for s in (1, 2, 3)
    ]
    replies, _ = complete(folder, tmp_path, requests, batch_size=6)
    assert len({replies[f"0.0{s}"].text for s in (1, 2, 3)}) == 1
    assert len({replies[f"1.0{s}"].text for s in (1, 2, 3)}) == 3


def test_the_chat_template_is_used_where_there_is_one(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, template in (("plain", None), ("chat", TEMPLATE), ("strict", STRICT)):
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
        request = ChatRequest("k", messages, max_tokens=1)
        replies, _ = complete(folder, tmp_path / name, [request])
        expected = {"plain": "S\n\nU\n\n", "chat": "<system>S<user>U<model>",
                    "strict": "<user>S\n\nU<model>"}[name]  # fmt: skip
        assert replies["k"].prompt_tokens == len(expected)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)


def test_images_are_refused(folder, tmp_path):
    content = [{"type": "text", "text": "what?"}, image_part(b"\x89PNG")]
    request = ChatRequest("p", [{"role": "user", "content": content}])
    replies, _ = complete(folder, tmp_path, [request])
    assert replies["p"].failure == "refused" and "no images" in replies["p"].error


def test_numbers_that_are_not_set_are_the_models_own(folder, tmp_path):
    sure = tmp_path / "sure"
    shutil.copytree(folder, sure)
    (sure / "generation_config.json").write_text('{"temperature": 1e-6, "eos_token_id": 1}')
    greedy, _ = complete(folder, tmp_path / "a", [ask("x", temperature=0.0)])
    for place, same in ((sure, True), (folder, False)):
        drawn = [ask("x", temperature=None, top_p=None, seed=seed) for seed in range(3)]
        with_key = [replace(r, key=f"{place}{r.seed}") for r in drawn]
        replies, _ = complete(place, tmp_path / "b", with_key)
        assert ({r.text for r in replies.values()} == {greedy["x"].text}) is same


def test_a_folder_is_known_by_what_its_files_hold(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)

    def identity(place):
        return read_llm({"backend": "transformers", "model": str(place)}).identity

    assert identity(folder) == identity(copy)
    path = copy / "config.json"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b" ", b"\t", 1))  # of the same size and time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert identity(folder) != identity(copy)


def test_thoughts_are_kept_apart_even_where_their_marks_are_special_tokens(folder, tmp_path):
    from lavis.common.registry import llms
    from lavis.llm.config import TransformersConfig

    config = TransformersConfig(model=str(folder), device="cpu")
    backend = llms.get("transformers")(config, None)
    backend._tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    tokens = backend._tokenizer.encode("[THINK]hm[/THINK]hi<pad>", add_special_tokens=False)
    assert backend._answer(tokens, "x") == ("hi", "hm")
    assert backend._answer(tokens[1:], "x[THINK]\n") == ("hi", "hm")
    assert backend._answer(backend._tokenizer.encode("hm"), "x<think>\n") == ("", "hm")
    assert backend._answer(backend._tokenizer.encode("hi"), "x") == ("hi", "")


def test_a_cap_lets_in_as_much_of_a_batch_as_fits_and_never_waits_for_itself(folder, tmp_path):
    requests = [ask(f"text {n}") for n in range(6)]
    caps = {"max_requests": 4, "max_tokens": 2 * (8 + 6 + 16 * 2)}  # bounds of two at once
    llm = read_llm({
        "backend": "transformers", "model": str(folder), "device": "cpu", "batch_size": 6,
        "cache_dir": str(tmp_path / "cache"), "caps": caps,
    })  # fmt: skip
    with build_client(llm, tmp_path / "state") as client:
        replies = []
        with pytest.raises(BudgetReached, match="is reached"):
            replies.extend(client.complete(requests))
        assert client.reserved() == Totals() and client.spent().tokens <= caps["max_tokens"]
    assert 2 <= client.spent().requests <= 4
