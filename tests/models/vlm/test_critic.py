"""Verdicts, likelihoods and letters of the critic, against numbers computed by hand."""

import pytest
import torch

from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.model import ImagePrompt

PARTS = [
    {"question": "what is [0]?", "answer": "a cat", "rationale": "it is red", "text": "a red cat"},
    {"question": "", "answer": "", "rationale": "", "text": "a dog"},
    {"question": "what colour?", "answer": "blue", "rationale": "", "text": "a blue dog"},
]


def critic(folder, **options):
    return VlmCritic.from_config(VlmCriticConfig(name=folder, dtype="fp32", **options))


@pytest.fixture(scope="module")
def qwen(vlm_folder):
    return critic(vlm_folder("qwen2_5_vl"))


def samples(views, parts=PARTS, **more):
    return {"views": views, "parts": parts, "image_index": [1, 0, 1], **more}


def test_the_score_is_yes_among_yes_and_no(qwen, views):
    words = [["a red box"], ["the cat at the left", "[1]"], []]
    result = qwen.predict(samples(views, region_words=words))
    regions = [{"number": number, "words": word} for number, word in enumerate(words[1])][:1]
    text = qwen.prompt.render({**PARTS[0], "regions": regions})
    assert "\n[0]: the cat at the left\n\n" in text and "a red cat" not in text
    vocabulary = range(len(qwen.processor.tokenizer))
    p = qwen.next_token(views, [ImagePrompt(1, text)], vocabulary)[0].exp()
    yes, no = p[list(qwen.yes.tokens)].sum(), p[list(qwen.no.tokens)].sum()
    assert result["prediction"][0, 1].item() == pytest.approx((yes / (yes + no)).item(), abs=1e-5)
    assert result["notes"][0]["mass"] == pytest.approx((yes + no).item(), abs=1e-5)
    assert len(qwen.yes.tokens) == 6 and len(qwen.no.tokens) == 6


def test_logits_are_logarithms_that_tell_the_surest_apart(qwen, views, monkeypatch):
    result = qwen.predict(samples(views))
    torch.testing.assert_close(result["logits"].exp(), result["prediction"], atol=1e-6, rtol=0)

    def surer_each_time(views, prompts, ids, refused):
        rows = torch.full((len(prompts), len(ids)), -60.0)
        yes = rows[:, len(qwen.no.tokens) :]
        yes[:, 0] = torch.arange(len(prompts)) - 40.0  # little mass, and nearly all of it yes
        return rows

    monkeypatch.setattr(qwen, "next_token", surer_each_time)
    result = qwen.predict({"views": views[:1], "parts": PARTS, "image_index": [0, 0, 0]})
    sure = result["logits"][:, 1].tolist()
    assert sure[0] < sure[1] < sure[2] < 0 and result["prediction"][:, 1].tolist() == [1, 1, 1]


def test_texts_are_scored_as_if_alone(qwen, views):
    together = qwen.predict(samples(views))["prediction"]
    for place, (part, image) in enumerate(zip(PARTS, [1, 0, 1], strict=True)):
        alone = qwen.predict({"views": [views[image]], "parts": [part]})["prediction"]
        torch.testing.assert_close(alone[0], together[place], atol=1e-4, rtol=0)


def test_vqascore_is_the_share_of_one_token_in_the_whole_vocabulary(vlm_folder, views):
    model = critic(vlm_folder("qwen3_vl"), prompt="vqascore")
    result = model.predict(samples(views))
    text = 'Does this figure show "a red cat"? Please answer Yes or No.'
    token = model.processor.tokenizer.encode("Yes")
    expected = model.next_token(views, [ImagePrompt(1, text)], token)[0, 0].exp()
    torch.testing.assert_close(result["prediction"][0, 1], expected, atol=1e-6, rtol=0)
    assert model.yes.tokens == tuple(token)


def test_a_text_with_a_mark_of_the_model_has_no_score_and_spoils_no_other(qwen, views):
    clean = qwen.predict(samples(views))
    parts = [dict(PARTS[0], answer="<|image_pad|> a cat"), *PARTS[1:]]
    result = qwen.predict(samples(views, parts))
    assert result["notes"][0] == {"reject": "text holds a mark of the model: '<|image_pad|>'"}
    assert result["prediction"][0].isnan().all()
    torch.testing.assert_close(result["prediction"][1:], clean["prediction"][1:], atol=1e-4, rtol=0)


def test_the_likelihood_is_that_of_the_answer_behind_the_question(qwen, views):
    result = qwen.answer_losses(samples(views))
    assert result["notes"][1] == {"reject": "answer is empty: it has no likelihood"}
    assert result["loss_sum"][1].isnan()
    ids = qwen.processor.tokenizer.encode("blue")
    assert result["tokens"].tolist()[2] == len(ids) == 1
    expected = qwen.next_token(views, [ImagePrompt(1, "what colour?")], ids)
    assert result["loss_sum"][2].item() == pytest.approx(-expected.item(), abs=1e-4)


def test_letters_count_with_and_without_a_blank_and_only_where_there_is_an_option(qwen, views):
    parts = [
        {"question": "what is it?", "options": ["a cat", "a dog"]},
        {"question": "what is it?", "options": ["a cat", "a dog", "a box"]},
    ]
    log_probs = qwen.letters({"views": views[:2], "parts": parts})["log_probs"]
    assert log_probs.shape == (2, 3) and log_probs[0, 2] == float("-inf")
    text = (
        "Question: what is it?\nOptions:\nA. a cat\nB. a dog\nC. a box\n"
        "Answer with the option's letter from the given choices directly."
    )
    ids = [i for form in ("B", " B") for i in qwen.processor.tokenizer.encode(form)]
    assert len(ids) == 2
    expected = qwen.next_token(views, [ImagePrompt(1, text)], ids)[0].exp().sum().log()
    torch.testing.assert_close(log_probs[1, 1], expected, atol=1e-4, rtol=0)


def test_a_trace_tells_what_a_verdict_is_made_of(qwen, views):
    parts = [*PARTS[:2], dict(PARTS[2], answer="<|image_pad|>")]
    scores = qwen.predict(samples(views, parts))["prediction"][:, 1]
    traces = qwen.trace(samples(views, parts, region_words=[[], ["a red box"], []]), top=4)
    assert traces[2] == {"reject": "text holds a mark of the model: '<|image_pad|>'"}
    plain = qwen.trace(samples(views, parts))
    assert [trace["score"] for trace in plain[:2]] == pytest.approx(scores[:2].tolist(), abs=1e-5)
    first = traces[0]
    assert "[0]: a red box" in first["prompt"] and "Answer: a cat" in first["prompt"]
    assert first["prompt"].startswith("<|im_start|>user") or "<|vision_start|>" in first["prompt"]
    assert [piece for piece, _ in first["yes"]] == list(qwen.yes.pieces)
    yes, no = (sum(share for _, share in first[name]) for name in ("yes", "no"))
    assert first["score"] == pytest.approx(yes / (yes + no), abs=1e-6)
    shares = [share for _, share in first["top"]]
    assert len(shares) == 4 and shares == sorted(shares, reverse=True)
    tokens = range(len(qwen.processor.tokenizer))
    text = qwen.prompt.render({**parts[1], "regions": []})
    best = qwen.next_token(views, [ImagePrompt(0, text)], tokens)[0].exp()
    assert plain[1]["top"][0][1] == pytest.approx(best.max().item(), abs=1e-5)
    assert [tuple(image.shape) for image in first["images"]] == [(3, 56, 56)]


def test_a_trace_over_the_vocabulary_has_the_score_of_the_preset(vlm_folder, views):
    model = critic(vlm_folder("qwen3_vl"), prompt="vqascore")
    (score,) = model.predict(samples(views[:1], PARTS[:1], image_index=[0]))["prediction"][:, 1]
    (trace,) = model.trace(samples(views[:1], PARTS[:1], image_index=[0]))
    assert trace["score"] == pytest.approx(score.item(), abs=1e-6)


def test_the_recipe_tells_prompts_words_and_processors_apart(vlm_folder):
    folder = vlm_folder("qwen2_5_vl")
    options = [{}, {"prompt": "vqascore"}, {"yes_words": ("right",)}, {"max_pixels": 28 * 28 * 4}]
    recipes = {critic(folder, **one).frozen_fingerprint() for one in options}
    assert len(recipes) == len(options)
    assert critic(folder).frozen_fingerprint() in recipes


def test_a_model_that_is_used_as_it_is_has_nothing_to_save(qwen):
    assert qwen.trainable_state_dict() == {}
    assert not qwen.train().vlm.training
    assert len(qwen.layers_to_shard(torch.device("cpu"))) == 4  # two of the tower, two of the text
