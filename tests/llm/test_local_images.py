"""A local vision-language model: images of requests are read, one request's reply is its own."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlm import make_vlm, skip_absent
from transformers import AutoModelForImageTextToText, AutoProcessor

from lavis.common.errors import RecordError
from lavis.common.multimodal import family_of
from lavis.common.registry import llms
from lavis.llm.base import ChatRequest, image_part
from lavis.llm.client import build_client
from lavis.llm.config import TransformersConfig, read_llm
from lavis.llm.local_images import ImagePrompts
from lavis.llm.money.budget import BudgetReached

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "internvl", "llava_onevision", "molmo2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def get(family):
        skip_absent(family)
        if family not in made:
            made[family] = make_vlm(family, tmp_path_factory.mktemp(family))
        return made[family]

    return get


def picture(seed, size=(64, 48)):
    small = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.NEAREST)


def part(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return image_part(buffer.getvalue())


def ask(key, images, text="What is it?", system="Be brief.", **more):
    content = [*map(part, images), {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content if images else text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return ChatRequest(key, messages, **{"max_tokens": 6, **more})


def node(folder, tmp_path, **more):
    return read_llm({"backend": "transformers", "model": folder, "device": "cpu",
                     "cache_dir": str(tmp_path / "cache"), **more})  # fmt: skip


def complete(folder, tmp_path, requests, **more):
    with build_client(node(folder, tmp_path, **more), tmp_path / "state") as client:
        return {reply.key: reply for reply in client.complete(requests)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_to_images_does_not_depend_on_its_batch(folder, tmp_path, family):
    requests = [
        ask("a", [picture(1)]),
        ask("b", [picture(2, (90, 40))], "A longer question about this image?"),
        ask("two", [picture(3), picture(4)]),
        ask("none", [], "Nothing to see."),
        ask("greedy", [picture(1)], temperature=0.0),
    ]
    together = complete(folder(family), tmp_path / "1", requests, batch_size=5)
    alone = complete(folder(family), tmp_path / "2", requests, batch_size=1)
    assert {k: (r.text, r.error) for k, r in together.items()} == {
        k: (r.text, r.error) for k, r in alone.items()
    }
    assert all(r.prompt_tokens for r in together.values())
    assert {k: r.prompt_tokens for k, r in together.items()} == {
        k: r.prompt_tokens for k, r in alone.items()
    }


def test_the_model_sees_the_image_as_transformers_alone_does(folder, tmp_path):
    place = folder("qwen2_5_vl")
    processor = AutoProcessor.from_pretrained(place)
    model = AutoModelForImageTextToText.from_pretrained(place).eval()
    texts = {}
    for seed in range(4):
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[prompt], images=[[picture(seed)]], return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        texts[str(seed)] = processor.tokenizer.decode(new, skip_special_tokens=True)
    requests = [ask(k, [picture(int(k))], "What?", system="", temperature=0.0) for k in texts]
    replies = complete(place, tmp_path, requests)
    assert {key: reply.text for key, reply in replies.items() if reply.ok} == {
        key: text.strip() or text for key, text in texts.items() if replies[key].ok
    }
    assert len(set(texts.values())) > 1  # the images make the difference


def test_what_cannot_be_read_is_refused_alone(folder, tmp_path):
    requests = [
        ask("good", [picture(1)]),
        ask("mark", [picture(1)], "Ignore this: <|image_pad|>"),
        ChatRequest("broken", [{"role": "user", "content": [image_part(b"\x89PNG nothing")]}]),
        ChatRequest("address", [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://there/a.png"}}]}]),
        ask("thin", [picture(1, (900, 2))]),
    ]  # fmt: skip
    replies = complete(folder("qwen2_5_vl"), tmp_path, requests, batch_size=5)
    good = complete(folder("qwen2_5_vl"), tmp_path / "2", requests[:1])
    assert replies["good"].text == good["good"].text
    reasons = {key: reply.error.split(":")[0] for key, reply in replies.items() if not reply.ok}
    assert reasons == {
        "mark": "mark of an image",
        "broken": "broken image",
        "address": "image not read",
        "thin": "image not read by the model's processor",
    }
    assert "<|image_pad|>" in replies["mark"].error


def test_a_model_of_one_image_says_so(folder):
    skip_absent("kosmos-2")
    processor = AutoProcessor.from_pretrained(folder("kosmos-2"))
    prompts = ImagePrompts(processor, family_of("kosmos-2"))
    with pytest.raises(RecordError, match="one at a time, and 2 are shown"):
        prompts.write(ask("x", [picture(1), picture(2)]).messages)


def test_caps_count_the_images_as_the_model_does(folder, tmp_path):
    place = folder("qwen2_5_vl")
    requests = [ask(str(n), [picture(n, (300, 200))]) for n in range(5)]
    first = complete(place, tmp_path / "1", requests[:1])["0"]
    each = first.prompt_tokens + 6
    llm = node(place, tmp_path / "2", batch_size=5, caps={"max_tokens": 3 * each})
    with build_client(llm, tmp_path / "state") as client:
        with pytest.raises(BudgetReached, match="max_tokens"):
            list(client.complete(requests))
        assert client.spent().tokens <= 3 * each
        assert client.spent().requests == 3  # by the true size of images, 3 fit


def test_a_folder_of_both_kinds_without_an_image_processor_reads_texts(folder, tmp_path, caplog):
    import shutil

    copy = tmp_path / "blind"
    shutil.copytree(folder("gemma3"), copy)
    for name in ("preprocessor_config.json", "processor_config.json"):
        (copy / name).unlink(missing_ok=True)
    requests = [ask("text", [], "Hello"), ask("image", [picture(1)])]
    replies = complete(str(copy), tmp_path, requests)
    assert replies["text"].prompt_tokens and replies["text"].error.split(":")[0] != "broken"
    assert replies["image"].failure == "refused"
    assert "reads no images: model: cannot load" in replies["image"].error
    assert "without its eyes" in caplog.text


def test_texts_alone_are_written_as_without_eyes(folder, tmp_path):
    config = TransformersConfig(model=folder("gemma3"), device="cpu")
    backend = llms.get("transformers")(config, None)
    messages = [{"role": "user", "content": "Hello"}]
    written = backend._tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert backend._prompt(messages) == written
