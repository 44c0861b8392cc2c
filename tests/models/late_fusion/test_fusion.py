"""Text rows that saw an image equal those of a plain pass over the whole sequence."""

import pytest
import torch

from lavis.common.errors import ConfigError

PATCHES = 5


def plain_pass(model, text, features, index):
    """Run the whole sequence `[patches ; text]` through the block, as released code does."""
    rows = []
    for b in range(len(text.hidden)):
        kept = text.keys[b]
        u = model.fusion_input.patches(model.mm_proj(features[index[b]]))  # (K, P, H)
        z = model.fusion_input.text(text.hidden[b][kept]).expand(len(u), -1, -1)
        whole = torch.cat([u, z], dim=1)
        rows.append(model.fusion_layer(inputs_embeds=whole).last_hidden_state[:, u.shape[1] :])
    return rows


def test_text_only_is_the_librarys_own(make_model, kind, texts):
    model, sample = make_model(kind), texts()
    own = model.llm(**sample).logits
    seen = sample["attention_mask"].bool()
    found = model.logits(model.encode_text(**sample).hidden)
    torch.testing.assert_close(found[seen], own[seen], atol=1e-5, rtol=1e-4)
    predicted = model.predict(sample)["log_probs"][:, 0]
    last = sample["attention_mask"].sum(dim=1) - 1
    expected = own[torch.arange(3), last].log_softmax(dim=-1)
    torch.testing.assert_close(predicted, expected, atol=1e-5, rtol=1e-4)


def test_text_rows_equal_those_of_a_plain_pass(make_model, kind, texts, images):
    model, sample, seen = make_model(kind), texts(first=2), images()
    features, index = seen["vision_features"], seen["image_index"]
    with torch.no_grad():
        text = model.encode_text(**sample)
        fused = model.fuse(text, features, index)
        expected = plain_pass(model, text, features, index)
    for b, rows in enumerate(expected):
        kept = fused[b][:, text.keys[b]]
        torch.testing.assert_close(kept, rows, atol=2e-5, rtol=1e-4)


def test_padding_batches_and_positions_change_nothing(make_model, kind, texts, images):
    model, seen = make_model(kind), images()
    right, left = texts(first=2), texts(first=2, side="left")
    whole = model.predict({**right, **seen}, details=True)
    other = model.predict({**left, **seen}, details=True)
    for name, value in whole.items():
        torch.testing.assert_close(other[name], value, atol=2e-5, rtol=1e-4)
    for b in range(3):
        length = int(right["attention_mask"][b].sum())
        alone = {
            "input_ids": right["input_ids"][b : b + 1, :length],
            "vision_features": seen["vision_features"],
            "image_index": seen["image_index"][b : b + 1],
            "scores": seen["scores"][b : b + 1],
        }
        for name, value in model.predict(alone, details=True).items():
            torch.testing.assert_close(value, whole[name][b : b + 1], atol=2e-5, rtol=1e-4)


def test_a_merged_start_token_is_not_seen_and_predicts_from_the_last_patch(
    make_model, texts, images
):
    model, seen = make_model("gemma"), images(1, 2)
    sample = texts((6,), first=2)
    changed = {name: value.clone() for name, value in sample.items()}
    features, index = seen["vision_features"], seen["image_index"]
    with torch.no_grad():
        text = model.encode_text(**sample)
        fused = model.fuse(text, features, index)
        text.hidden[:, 0] += 7.0
        again = model.fuse(text, features, index)
        patch = model.fuse(text, features, index, torch.tensor([[-1]]))
    assert changed["input_ids"][0, 0] == 2
    torch.testing.assert_close(fused, again)
    torch.testing.assert_close(fused[:, :, :1], patch)
    concat = make_model("gemma", gemma_layout="concat")
    assert bool(concat.encode_text(**sample).keys.all())


def test_opt_with_a_projection_takes_its_width_from_the_head(make_model, texts, images):
    sizes = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    model = make_model("opt", llm=sizes)
    assert model.mm_proj.linear2.out_features == 16
    found = model.predict({**texts(), **images()})["log_probs"]
    assert found.shape == (3, 1, 61) and bool(found.isfinite().all())
    with pytest.raises(ConfigError, match=r"fusion\.init: the layer of 'opt' cannot be started"):
        make_model("opt", init="identity", llm=sizes)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert", "roberta"])
def test_too_long_a_text_is_refused_before_the_table_ends(make_model, kind, texts, images):
    model = make_model(kind)
    fits = texts((64 - PATCHES,))
    model.predict({**fits, **images(1)})
    with pytest.raises(ConfigError, match=r"65 rows of patches and text, but this .* has 64"):
        model.predict({**texts((65 - PATCHES,)), **images(1)})


def test_features_of_another_tower_are_refused(make_model, texts, images):
    sample = {**texts(), **images()}
    sample["vision_features"] = sample["vision_features"][..., :7]
    with pytest.raises(ConfigError, match="vision features of width 7, but the projector reads 12"):
        make_model("llama").predict(sample)
