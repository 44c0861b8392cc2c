"""The order in which texts are run, and the tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis.common.errors import ConfigError
from lavis.models.blip2.config import QFormerConfig
from lavis.models.blip2.qformer import QFormer, build_tokenizer, plan_texts


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 12))
def test_plans_hold_every_text_once_beside_its_image(image_index, max_texts):
    plans = plan_texts(image_index, max_texts)
    assert sorted(text for plan in plans for text in plan.texts) == list(range(len(image_index)))
    for plan in plans:
        assert 0 < len(plan.texts) <= max_texts
        counts = [texts for images, texts in plan.groups for _ in range(images)]
        owners = [p for p, n in zip(plan.images, counts, strict=True) for _ in range(n)]
        assert [image_index[text] for text in plan.texts] == owners


def test_images_with_equally_many_texts_form_one_group():
    (plan,) = plan_texts([0, 1, 2, 2, 3, 3], 100)
    assert plan.groups == ((2, 1), (2, 2))
    (plan,) = plan_texts([0, 1, 2], 100)
    assert (plan.texts, plan.groups) == ((0, 1, 2), ((3, 1),))


def test_tokenizer_lower_cases_and_knows_dec():
    tokenizer = build_tokenizer(QFormerConfig())
    assert (len(tokenizer), tokenizer.bos_token_id, tokenizer.pad_token_id) == (30523, 30522, 0)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("Is [0] A man?")["input_ids"])
    assert pieces == ["[CLS]", "is", "[", "0", "]", "a", "man", "?", "[SEP]"]


def test_own_small_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "cat"]) + "\n")
    tokenizer = build_tokenizer(QFormerConfig(vocab=str(path)))
    assert tokenizer("Red cat dog")["input_ids"] == [2, 4, 5, 1, 3]
    assert len(tokenizer) == 7
    with pytest.raises(ConfigError, match="has 7 tokens with"):
        build_tokenizer(QFormerConfig(vocab=str(path), vocab_size=6))
    path.write_text("[PAD]\n[UNK]\n[CLS]\nred\n")
    with pytest.raises(ConfigError, match=r"lacks the token \[SEP\]"):
        build_tokenizer(QFormerConfig(vocab=str(path)))


def test_the_norms_epsilon_is_an_option(tiny_sizes):
    def epsilon(**changes):
        config = QFormerConfig(**{**tiny_sizes["qformer"], **changes})
        sizes = {"num_query_token": 2, "cross_attention_freq": 2, "image_width": 8}
        return QFormer(config, **sizes, vocab_size=5).model.layernorm.eps

    assert epsilon() == 1e-12 and epsilon(layer_norm_eps=1e-6) == 1e-6
