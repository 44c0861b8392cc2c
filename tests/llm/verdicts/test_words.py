"""Which tokens say yes, and where an answer's first word is."""

import pytest

from lavis.common.errors import ConfigError
from lavis.llm.base import TokenLogprobs
from lavis.llm.verdicts.words import VerdictWords, first_word

YES = VerdictWords.of(["Yes"])


@pytest.mark.parametrize("token", ["Yes", " yes", "YES", "\u2581Yes", "\u0120yes", "yes\n", "yEs"])
def test_a_word_counts_in_any_case_and_between_blanks(token):
    assert YES.says(token)


@pytest.mark.parametrize("token", ["Yess", "Ye", "No", "", " ", "yes.", "\u2581"])
def test_other_tokens_do_not(token):
    assert not YES.says(token)


def test_exact_words_are_taken_as_they_are():
    exact = VerdictWords.of(["Yes"], "exact")
    assert [exact.says(token) for token in ("Yes", "yes", " Yes")] == [True, False, False]
    assert (exact.not_among(["No"]), exact.not_among(["Yes"])) == (1, 0)


def test_spellings_that_are_not_listed_are_counted():
    assert YES.not_among([]) == 6  # three cases, with and without a blank
    assert YES.not_among(["Yes", "\u2581yes", "yEs", "No"]) == 4


class Tokenizer:
    """Two spellings are one token."""

    def encode(self, text, add_special_tokens):
        assert add_special_tokens is False
        return {"Yes": [5], " Yes": [6]}.get(text, [1, 2])


def test_a_tokenizer_says_which_spellings_there_are():
    known, ids = YES.in_vocabulary(Tokenizer())
    assert (known.spellings, ids) == (frozenset({"Yes", " Yes"}), [5, 6])
    assert known.not_among(["Yes", " Yes"]) == 0 and known.says(" YES")
    with pytest.raises(ConfigError, match=r"llm.tokenizer: it has no single token .*: maybe"):
        VerdictWords.of(["maybe"]).in_vocabulary(Tokenizer())


@pytest.mark.parametrize(
    "before", [(), ("\n",), (" ", '"'), ("**",), ("\u2581", "“"), ("```", "\n\n"), ("> ",)]
)
def test_blanks_quotes_and_stars_before_the_first_word_are_passed(before):
    places = [TokenLogprobs(token, -0.1) for token in (*before, "Yes", "!")]
    assert first_word(places) is places[len(before)]


def test_an_answer_of_marks_alone_has_no_word():
    assert first_word([TokenLogprobs("**", -0.1)]) is None and first_word([]) is None
