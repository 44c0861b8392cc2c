"""Tokens of yes and no, as tokenizers of two kinds spell them."""

import pytest
from tiny_vlm import make_tokenizer

from lavis.common.errors import ConfigError
from lavis.models.vlm.words import check_apart, token_set


@pytest.fixture(scope="module")
def byte_level():
    return make_tokenizer(bos=True)


@pytest.fixture(scope="module")
def sentences():
    """A tokenizer that puts a blank in front of every text, and an end of line in bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "<unk>",
        "<s>",
        "\u2581Yes",
        "Yes",
        "\u2581yes",
        "\u2581No",
        "No",
        "\n",
        "\u2581",
        "r",
        "t",
    ]
    core = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>")


def pieces(tokenizer, words, spellings="all"):
    return set(token_set(tokenizer, words, spellings, "model.yes_words").pieces)


def test_case_and_blanks_make_spellings_of_one_token(byte_level):
    yes = {"Yes", "yes", "YES", "\u0120Yes", "\u0120yes", "\u0120YES"}
    assert pieces(byte_level, ("Yes",)) == yes
    assert pieces(byte_level, ("Yes",), "spaced") == {"Yes", "\u0120Yes"}
    assert pieces(byte_level, ("Yes",), "exact") == {"Yes"}
    assert pieces(byte_level, ("Yes", "No"), "exact") == {"Yes", "No"}


def test_bos_is_never_among_them(byte_level):
    assert byte_level.encode("Yes")[0] == byte_level.bos_token_id
    for spellings in ("all", "spaced", "exact"):
        assert "<s>" not in pieces(byte_level, ("Yes",), spellings)


def test_a_bare_word_is_seen_where_every_text_begins_with_a_blank(sentences):
    assert pieces(sentences, ("Yes",)) == {"\u2581Yes", "Yes", "\u2581yes"}
    assert pieces(sentences, ("Yes",), "exact") == {"\u2581Yes"}


def test_a_longer_word_counts_by_its_first_token(byte_level):
    first = byte_level.encode("Certainly", add_special_tokens=False)[0]
    assert token_set(byte_level, ("Certainly",), "all", "model.yes_words").tokens == (first,)


def test_words_without_tokens_and_words_that_begin_alike_are_refused(byte_level, sentences):
    with pytest.raises(ConfigError, match=r"model.no_words: .* no token for any of .'zz'"):
        token_set(sentences, ("zz",), "exact", "model.no_words")
    yes, no = (token_set(byte_level, (word,), "all", "") for word in ("Xa", "Xb"))
    with pytest.raises(ConfigError, match="share the token 'X'; choose words"):
        check_apart(yes, no)
    check_apart(yes, token_set(byte_level, ("No",), "all", ""))
