"""BLIP-2 with language models, against transformers' own class on the same weights."""

import math

import pytest
import torch

from lavis.common.errors import ConfigError

KINDS = ("t5", "opt", "gpt2")

INPUTS = ["question: what is [0] ? answer:", "what colour ?", "the dog"]


OUTPUTS = ["red box", "a dog in the box . rationale: i see it", "is near"]


@pytest.fixture(scope="module")
def samples():
    torch.manual_seed(1)
    return {"image": torch.randn(3, 3, 28, 28), "text_input": INPUTS, "text_output": OUTPUTS}


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_mean_over_output_tokens_whatever_the_padding(build, samples, kind):
    model = build(kind)
    alone = []
    for row in range(3):
        one = {"image": samples["image"][row : row + 1], "text_input": [INPUTS[row]]}
        alone.append(model.answer_losses({**one, "text_output": [OUTPUTS[row]]}))
    together = model.answer_losses(samples)
    sums = torch.cat([one["loss_sum"] for one in alone])
    torch.testing.assert_close(together["loss_sum"], sums, rtol=1e-5, atol=1e-5)
    assert together["tokens"].tolist() == [one["tokens"].item() for one in alone]
    assert together["tokens"][0] == 3  # two words and the end
    loss = model(samples)["loss"]
    torch.testing.assert_close(loss, sums.sum() / together["tokens"].sum(), rtol=1e-5, atol=1e-5)


def test_a_decoder_reads_image_then_input_and_is_asked_for_the_output(build, samples):
    model = build("gpt2")
    one = {"image": samples["image"][:1], "text_input": ["the dog"], "text_output": ["is near"]}
    prompts = model.soft_prompts(one, 1)
    ids = model.llm_tokenizer("the dog is near")["input_ids"]
    assert ids[0] == 1 and len(ids) == 5
    words = model.language_model.get_input_embeddings()(torch.tensor([ids]))
    with torch.no_grad():
        logits = model.language_model(inputs_embeds=torch.cat([prompts, words], dim=1)).logits[0]
    steps = logits[8 + 2 : 8 + 5].log_softmax(-1)  # after "dog", "is", "near"
    expected = -sum(steps[i, token] for i, token in enumerate([*ids[3:], 1]))
    torch.testing.assert_close(model.answer_losses(one)["loss_sum"][0], expected)


def test_an_encoder_decoder_gives_the_librarys_loss(build, samples):
    model = build("t5")
    one = {"image": samples["image"][:1], "text_input": INPUTS[:1], "text_output": OUTPUTS[:1]}
    words = model.llm_tokenizer(INPUTS[0], return_tensors="pt")["input_ids"]
    embeds = model.language_model.get_input_embeddings()(words)
    labels = model.llm_tokenizer(OUTPUTS[0], return_tensors="pt")["input_ids"]
    both = torch.cat([model.soft_prompts(one, 1), embeds], dim=1)
    expected = model.language_model(inputs_embeds=both, labels=labels).loss
    torch.testing.assert_close(model(one)["loss"], expected)
    assert model.language_model.config.dense_act_fn == "gelu"


def test_a_candidates_likelihood_is_that_of_its_own_tokens(build, samples):
    model = build("opt")
    whole = [f"{text} Answer: {output}" for text, output in zip(INPUTS, OUTPUTS, strict=True)]
    inputs = [f"{text} Answer:" for text in INPUTS]
    found = model.answer_losses({**samples, "text_input": inputs})
    candidates = {"image": samples["image"], "text_input": whole}
    mean = -found["loss_sum"] / found["tokens"]
    torch.testing.assert_close(model.candidate_likelihood(candidates), mean)
    plain = model.candidate_likelihood({"image": samples["image"], "text_input": ["a dog"] * 3})
    assert torch.isfinite(plain).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_all_that_is_trained_and_nothing_else(build, samples, kind):
    model = build(kind).train()
    assert not model.language_model.training
    model(samples)["loss"].backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for n, p in model.named_parameters() if n in trained)
    assert {n.split(".")[0] for n in trained} == {
        "ln_vision", "query_tokens", "qformer", "llm_proj"
    }  # fmt: skip
    projection = {"t5": "t5_proj", "opt": "opt_proj", "gpt2": "llm_proj"}[kind]
    saved = model.trainable_state_dict()
    assert f"{projection}.weight" in saved
    assert not any("_embeddings" in n or ".intermediate." in n for n in saved)
    assert not any(n.startswith(("visual_encoder", "language_model", "opt_model")) for n in saved)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_image_is_encoded_once(build, samples, kind):
    model = build(kind)
    index = torch.tensor([0, 1, 0])
    texts = {"text_input": INPUTS, "text_output": OUTPUTS}
    shared = model({"image": samples["image"][:2], "image_index": index, **texts})
    features = model.encode_frozen(samples["image"][:2])
    cached = model({"vision_features": features, "image_index": index, **texts})
    apart = model({"image": samples["image"][index], **texts})
    torch.testing.assert_close(shared["loss"], apart["loss"])
    torch.testing.assert_close(cached["loss"], apart["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_writing_is_the_same_alone_and_in_a_batch(build, samples, kind):
    model = build(kind)
    together = model.generate(samples, num_beams=1, max_length=6)
    for row in range(3):
        one = {"image": samples["image"][row : row + 1], "text_input": [INPUTS[row]]}
        assert model.generate(one, num_beams=1, max_length=6) == [together[row]]
    assert len(model.generate(samples, num_beams=3, num_captions=2, max_length=4)) == 6
    answers = model.predict_answers({**samples, "text_input": ["dog"] * 3}, prompt="the {}")
    asked = {**samples, "prompt": ["the dog"] * 3}
    assert answers == model.generate(asked, max_length=10, length_penalty=-1.0)


def test_greedy_writing_takes_the_likeliest_token(build, samples):
    model = build("gpt2")
    one = {"image": samples["image"][:1], "text_input": ["the dog"]}
    ids = model.llm_tokenizer("the dog")["input_ids"]
    written = []
    for _ in range(4):
        words = model.language_model.get_input_embeddings()(torch.tensor([ids + written]))
        both = torch.cat([model.soft_prompts(one, 1), words], dim=1)
        logits = model.language_model(inputs_embeds=both).logits[0, -1]
        if len(written) < 4:
            logits[1] = -math.inf  # the end, which min_length forbids
        written.append(int(logits.argmax()))
    expected = model.llm_tokenizer.decode(written, skip_special_tokens=True).strip()
    assert model.generate(one, num_beams=1, max_length=4, min_length=4) == [expected]


@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_files_of_lavis_and_of_stage_1_load(build, samples, kind, stage1_state):
    model = build(kind)
    saved = {name: value + 0.01 for name, value in model.trainable_state_dict().items()}
    other = build(kind)
    other.load_state({**saved, "Qformer.cls.predictions.bias": torch.zeros(3)})
    for name, value in other.trainable_state_dict().items():
        assert torch.equal(value, saved[name]), name
    report = build(kind).load_state(stage1_state)  # of the same sizes; its text half is not used
    assert not report.missing and not report.unexpected
    assert set(report.fresh) >= {"llm_proj.weight", "llm_proj.bias"}
    whole = model.full_state_dict()
    assert any(name.startswith(f"{kind}_model.") for name in whole)
    again = build(kind)
    again.load_state(whole)
    torch.testing.assert_close(again(samples)["loss"], model(samples)["loss"])


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_adapters_are_trained_and_saved_alone(build, samples, kind):
    pytest.importorskip("peft")
    targets = {"t5": ["q", "v"], "gpt2": ["c_attn"]}[kind]
    model = build(kind, lora={"rank": 2, "alpha": 4, "target_modules": targets, "dropout": 0.0})
    plain = build(kind)
    model.load_state(plain.full_state_dict())
    plain_loss = plain(samples)["loss"]  # fresh adapters change nothing
    torch.testing.assert_close(model(samples)["loss"], plain_loss)
    model.train()
    model(samples)["loss"].backward()
    adapters = [n for n, p in model.named_parameters() if "lora_" in n and p.grad is not None]
    assert adapters
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    saved = model.trainable_state_dict()
    frozen = [n for n in saved if n.startswith(("t5_model", "llm_model")) and "lora_" not in n]
    assert len([n for n in saved if "lora_" in n]) == len(adapters) and not frozen
    changed = model.eval()(samples)["loss"]
    assert abs(changed - plain_loss) > 1e-3
    again = build(kind, lora={"rank": 2, "alpha": 4, "target_modules": targets})
    again.load_state(plain.full_state_dict())  # tower and language model
    again.load_state(saved)
    torch.testing.assert_close(again(samples)["loss"], changed)
    with pytest.raises(ConfigError, match="adapters of the checkpoint"):
        again.load_state({n: v for n, v in saved.items() if n != adapters[0].replace(
            "language_model", {"t5": "t5_model", "gpt2": "llm_model"}[kind], 1)})  # fmt: skip


def test_half_precision_of_the_run_reaches_the_language_model(build, samples):
    model = build("t5")
    full = model(samples)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(samples)["loss"]
    assert half.dtype == torch.float32
    assert abs(half - full) < 0.05 * full
