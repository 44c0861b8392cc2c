"""Next tokens and losses against plain transformers code, alone, in batches and from branches."""

import pytest
import torch

from lavis.common.errors import ConfigError, RecordError
from lavis.common.multimodal import family_of
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.model import ImagePrompt
from projects.checks.tiny_vlm.plain import plain_scores

IDS = [5, 40, 270, 280, 291]
TEXTS = ["Is the cat red?", "Is the cat left of a dog? Please answer Yes or No.", "What?"]


def critic(folder, **options):
    return VlmCritic.from_config(VlmCriticConfig(name=folder, dtype="fp32", **options))


def test_equals_plain_transformers_alone_and_in_any_batch(vlm_folder, family, views):
    folder = vlm_folder(family)
    model = critic(folder)
    prompts = [ImagePrompt(image, text) for image in (0, 1) for text in TEXTS]
    prompts = [prompts[place] for place in (3, 0, 4, 1, 5, 2)]
    expected = torch.stack([plain_scores(folder, views[p.image], p.text)[-1, IDS] for p in prompts])
    together = model.next_token(views, prompts, IDS)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)
    alone = torch.cat([model.next_token(views, [prompt], IDS) for prompt in prompts])
    torch.testing.assert_close(alone, expected, atol=1e-4, rtol=0)


def test_branches_equal_whole_prompts_and_read_the_image_once(vlm_folder, family, views):
    folder = vlm_folder(family)
    long = "This is a long beginning that all of the texts share, every single one. " * 3
    prompts = [ImagePrompt(0, f"{long}{n} {text}") for n in range(3) for text in TEXTS]
    shared, whole = critic(folder, max_texts_per_pass=4), critic(folder, share_prefix=False)
    branched = shared.next_token(views, prompts, IDS)
    torch.testing.assert_close(branched, whole.next_token(views, prompts, IDS), atol=1e-4, rtol=0)
    if family_of(whole.vlm.config.model_type).branches == "never":
        assert shared.reader.passes["branches"] == 0
        return
    assert shared.reader.passes == {"whole": 0, "beginning": 1, "branches": 3}
    assert shared.reader.tokens < whole.reader.tokens / 2


def test_a_picture_between_leaves_no_trace(vlm_folder, family, views):
    """Positions behind an image are the image's own, whatever the model saw before it."""
    model = critic(vlm_folder(family))
    mine = [ImagePrompt(2, text) for text in TEXTS]
    first = model.next_token(views, mine, IDS)
    others = [ImagePrompt(1, TEXTS[0]), ImagePrompt(0, TEXTS[1]), *mine, ImagePrompt(0, TEXTS[2])]
    again = model.next_token(views, others, IDS)[2:5]
    torch.testing.assert_close(again, first, atol=1e-5, rtol=0)


def test_losses_are_those_of_the_whole_text(vlm_folder, family, views):
    folder = vlm_folder(family)
    model = critic(folder)
    prompts = [ImagePrompt(0, TEXTS[0]), ImagePrompt(1, TEXTS[0]), ImagePrompt(0, TEXTS[0])]
    answers = ["a red cat", "No", "the dog is not in the image"]
    losses, counts = model.continuation_losses(views, prompts, answers)
    for prompt, answer, loss, count in zip(prompts, answers, losses, counts, strict=True):
        ids = model.processor.tokenizer.encode(answer, add_special_tokens=False)
        assert len(ids) == count
        rows = plain_scores(folder, views[prompt.image], prompt.text, ids[:-1])
        expected = -rows.gather(1, torch.tensor(ids)[:, None]).sum()
        torch.testing.assert_close(loss, expected, atol=2e-4, rtol=0)


def test_several_views_are_read_in_order(vlm_folder, family, views):
    folder = vlm_folder(family)
    model = critic(folder)
    both = [[*views[0], *views[1]]]
    prompts = [ImagePrompt(0, text) for text in TEXTS]
    if model.family.images == "one":
        with pytest.raises(ConfigError, match="reads one image at a time, and rows show 2"):
            model.next_token(both, prompts, IDS)
        return
    found = model.next_token(both, prompts, IDS)
    if not model.reader.passes["branches"]:
        assert model.family.branches == "never"
    for place, text in enumerate(TEXTS if family != "paligemma" and family != "llava" else ()):
        expected = plain_scores(folder, both[0], text)[-1, IDS]
        torch.testing.assert_close(found[place], expected, atol=1e-4, rtol=0)
    swapped = model.next_token([both[0][::-1]], prompts, IDS)
    assert (swapped - found).abs().max() > 1e-3


def test_the_processor_sees_an_image_once(vlm_folder, family, views, monkeypatch):
    model = critic(vlm_folder(family))
    calls = []
    whole = type(model.processor).__call__

    def counted(self, *args, **options):
        calls.append(options)
        return whole(self, *args, **options)

    monkeypatch.setattr(type(model.processor), "__call__", counted)
    model.next_token(views, [ImagePrompt(0, text) for text in TEXTS], IDS)
    assert len(calls) == (len(TEXTS) if family in SEEN_AGAIN else 1)


# Their processors add to a text what the tokenizer alone does not.
SEEN_AGAIN = ("paligemma", "florence2")


def test_single_prompts_of_many_images_stand_side_by_side(vlm_folder, family, views):
    folder = vlm_folder(family)
    model = critic(folder)
    prompts = [ImagePrompt(image, TEXTS[image]) for image in (2, 0, 1)]
    found = model.next_token(views, prompts, IDS)
    for scores, prompt in zip(found, prompts, strict=True):
        expected = plain_scores(folder, views[prompt.image], prompt.text)[-1, IDS]
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    assert model.reader.passes["branches"] == 0
    assert model.reader.passes["whole"] == PASSES.get(family, 1)


# Where unlike numbers of tiles are not joined, an image has a pass of its own.
PASSES = {"idefics3": 2, "smolvlm": 2, "llava_next": 2, "llava_onevision": 2, "molmo2": 3}


def test_an_image_that_the_processor_refuses_spoils_no_other(vlm_folder, views):
    model = critic(vlm_folder("qwen3_vl"))
    flat = torch.zeros(3, 2, 900, dtype=torch.uint8)
    prompts = [ImagePrompt(0, TEXTS[0]), ImagePrompt(1, TEXTS[0]), ImagePrompt(0, TEXTS[1])]
    with pytest.raises(RecordError, match=r"image not read by the model.s processor: .*aspect"):
        model.next_token([[flat], views[0]], prompts, IDS)
    refused = {}
    found = model.next_token([[flat], views[0]], prompts, IDS, refused)
    assert sorted(refused) == [0, 2] and found[[0, 2]].isnan().all()
    expected = model.next_token([views[0]], [ImagePrompt(0, TEXTS[0])], IDS)
    torch.testing.assert_close(found[1], expected[0], atol=1e-4, rtol=0)
