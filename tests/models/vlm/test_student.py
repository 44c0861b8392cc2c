"""A student's loss against plain transformers with labels, what is trained, and what it writes."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from lavis.common.errors import ConfigError
from lavis.models.lora import LoraOptions
from lavis.models.vlm.config import VlmCriticConfig, VlmStudentConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.student import VlmStudent

QUESTIONS = ["what is [0]?", "what colour is the cat?", "is it left of the dog in this image?"]
ANSWERS = ["a red cat", "blue", "No it is right of the dog"]
PARTS = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
INDEX = [1, 0, 2]  # images of unlike sizes
EXACT = LoraOptions(rank=4, dropout=0.0)


def student(folder, **options):
    torch.manual_seed(0)
    options = {"lora": EXACT, "dtype": "fp32", **options}
    return VlmStudent.from_config(VlmStudentConfig(name=folder, **options))


def samples(views, parts=PARTS, index=INDEX, **more):
    return {"views": views, "parts": parts, "image_index": index, **more}


def picture(view):
    return Image.fromarray(np.ascontiguousarray(view.permute(1, 2, 0).numpy()))


def plain_loss(folder, view, question, answer):
    """Transformers' own loss of an answer's turn, and its number of tokens."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    if not processor.chat_template:
        inputs = processor(
            images=picture(view), text=f"<image>{question}", suffix=answer, return_tensors="pt"
        )
    else:
        shown = {"type": "image", "image": picture(view)}
        messages = [
            {"role": "user", "content": [shown, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True, **options)[
            "input_ids"
        ]
        inputs = processor.apply_chat_template(messages, **options)
        labels = inputs["input_ids"].clone()
        assert torch.equal(labels[:, : prompt.shape[1]], prompt)
        labels[:, : prompt.shape[1]] = -100
        labels[:, -1] = -100  # the end of the line behind the end token
        inputs["labels"] = labels
    with torch.no_grad():
        loss = model(**inputs).loss
    return loss, int((inputs["labels"] != -100).sum())


@pytest.mark.parametrize(
    "kind",
    ["qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "internvl", "llava_onevision", "paligemma"],
)
def test_the_loss_is_transformers_own_for_unequal_prompts_side_by_side(vlm_folder, views, kind):
    folder = vlm_folder(kind)
    plain = [
        plain_loss(folder, views[image][0], question, answer)
        for image, question, answer in zip(INDEX, QUESTIONS, ANSWERS, strict=True)
    ]
    count = sum(tokens for _, tokens in plain)
    expected = sum(loss * tokens for loss, tokens in plain) / count
    model = student(folder).eval()
    torch.testing.assert_close(model(samples(views))["loss"], expected, atol=1e-4, rtol=0)
    assert model.reader.passes["whole"] == 1
    losses = model.answer_losses(samples(views))
    assert losses["tokens"].tolist() == [tokens for _, tokens in plain]
    means = torch.stack([loss for loss, _ in plain])
    torch.testing.assert_close(losses["loss_sum"] / losses["tokens"], means, atol=1e-4, rtol=0)


def test_gradients_reach_all_adapters_and_nothing_else(vlm_folder, family, views):
    model = student(vlm_folder(family)).train()
    model(samples(views))["loss"].backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    moved = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == moved and all("lora_" in name for name in trained)
    assert not any("visi" in name or "visual" in name for name in trained)
    grads = [w.grad.abs().max() for n, w in model.named_parameters() if "lora_B" in n]
    assert min(grads) > 0
    assert set(model.trainable_state_dict()) == trained
    assert model.uses_every_weight


def test_the_language_model_alone_is_in_training_mode(vlm_folder):
    model = student(vlm_folder("qwen2_5_vl"), lora=LoraOptions()).train()
    modes = {name: part.training for name, part in model.vlm.named_modules()}
    assert modes["model.language_model.layers.0"] and not modes["model.visual.blocks.0"]
    assert not any(part.training for part in model.eval().modules())


def test_checkpointing_leaves_gradients_as_they_are(vlm_folder, views):
    found = []
    for again in (False, True):
        model = student(vlm_folder("qwen3_vl"), use_grad_checkpoint=again).train()
        model(samples(views))["loss"].backward()
        found.append([w.grad for w in model.parameters() if w.grad is not None])
        layers = model.vlm.model.language_model.layers
        assert layers[0].gradient_checkpointing is again
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_text_output_is_the_answer_and_a_long_one_is_cut_without_an_end(vlm_folder, views):
    folder = vlm_folder("qwen2_5_vl")
    model = student(folder, max_output_txt_len=4)
    assert model.answers({"parts": PARTS, "text_output": ["x", "y", "z"]}) == ["x", "y", "z"]
    prompt = model.encoder.write("what?", 1)
    (end,) = model.processor.tokenizer.encode("<|im_end|>")
    assert model.answer_tokens(prompt, "red")[-1] == end
    cut = model.answer_tokens(prompt, "red " * 9)
    assert len(cut) == 4 and end not in cut


def test_a_text_that_cannot_be_used_is_left_out_and_batches_keep_their_size(
    vlm_folder, views, caplog
):
    model = student(vlm_folder("qwen2_5_vl")).eval()
    good = model(samples(views, PARTS[:1], [1]))["loss"]
    bad = [{"question": "<|image_pad|>", "answer": "a"}, {"question": "q", "answer": " "}]
    loss = model(samples(views, [*bad, PARTS[0]], [0, 0, 1]))["loss"]
    torch.testing.assert_close(loss, good, atol=1e-5, rtol=0)
    assert "training without a text: text holds a mark of the model" in caplog.text
    assert "training without a text: answer is empty" in caplog.text
    none = model(samples(views, bad, [0, 0]))["loss"]
    none.backward()
    assert none.item() == 0 and not any(p.grad.any() for p in model.parameters() if p.requires_grad)
    losses = model.answer_losses(samples(views, [*bad, PARTS[0]], [0, 0, 1]))
    assert [note.get("reject", "")[:15] for note in losses["notes"]] == [
        "text holds a ma", "answer is empty", ""
    ]  # fmt: skip
    assert losses["loss_sum"].isnan().tolist() == [True, True, False]


@pytest.mark.parametrize(
    "kind", ["qwen2_5_vl", "gemma4", "internvl", "llava", "florence2", "molmo2"]
)
def test_answers_written_together_are_those_written_alone(vlm_folder, views, kind):
    model = student(vlm_folder(kind)).eval()
    asked = [{"question": question} for question in QUESTIONS]
    together = model.generate(samples(views, asked, [1, 1, 0]), max_length=6)
    alone = [
        model.generate(samples(views, [part], [image]), max_length=6)[0]
        for part, image in zip(asked, [1, 1, 0], strict=True)
    ]
    assert together == alone and any(together)


def test_it_learns_three_answers_and_stops_behind_them(vlm_folder, views):
    model = student(vlm_folder("qwen2_5_vl"), lora=LoraOptions(rank=16, alpha=32)).train()
    groups = model.get_optimizer_params(0.0)
    optimizer = torch.optim.AdamW(groups, lr=2e-2, betas=(0.9, 0.99))
    losses = []
    for _ in range(45):
        loss = model(samples(views))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 2 < 6 < losses[0]  # rows of its head are short: below 1.5 none can be
    assert model.eval().generate(samples(views), max_length=20) == ANSWERS


def test_a_critic_is_trained_on_labels_by_its_own_score(vlm_folder, views):
    torch.manual_seed(0)
    config = VlmCriticConfig(name=vlm_folder("gemma3"), dtype="fp32", lora=EXACT)
    model = VlmCritic.from_config(config)
    labels = torch.tensor([1, 0, 1])
    scores = model.predict(samples(views))["prediction"]
    expected = -scores.log().gather(1, labels[:, None]).mean()
    loss = model(samples(views, label=labels))["loss"]
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=0)
    loss.backward()
    with pytest.raises(ConfigError, match="trained on labels"):
        model(samples(views))


def test_nothing_to_train_is_refused_and_adapters_of_another_run_too(vlm_folder):
    folder = vlm_folder("qwen2_5_vl")
    model = student(folder, lora=None)
    with pytest.raises(ConfigError, match=r"write model\.lora\.rank=16"):
        model.get_optimizer_params(0.0)
    state = student(folder).trainable_state_dict()
    with pytest.raises(ConfigError, match=r"adapters of the checkpoint and of model\.lora differ"):
        model.load_state(state)
    other = student(folder)
    changed = {name: torch.full_like(value, 0.5) for name, value in state.items()}
    other.load_state(changed)
    assert all((value == 0.5).all() for value in other.trainable_state_dict().values())
