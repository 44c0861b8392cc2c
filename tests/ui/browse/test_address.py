"""An address holds all that was asked for, and any text is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis.common.errors import ConfigError
from lavis.ui.browse.address import Address

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    words=TEXTS,
    source=st.lists(TEXTS.filter(bool), unique=True, max_size=3),
    page=st.integers(1, 99),
)
def test_what_is_written_is_read(words, source, page):
    address = Address(words=words, source=tuple(source), order="score-desc", page=page, open=0)
    assert Address.read(address.write()) == address


@given(TEXTS)
def test_no_address_is_an_error(text):
    Address.read(text)
    Address.read(f"?p={text}&open={text}&source={text}&order={text}")


def test_only_what_differs_from_the_default_stands_in_it():
    assert Address().write() == "?"
    address = Address.read("?words=a+%22b%22&source=x&source=y&score_from=0.5&p=3&__theme=dark")
    assert address.write(page=1) == "?words=a+%22b%22&source=x&source=y&score_from=0.5"
    assert address.write(open=7).endswith("&p=3&open=7")


def test_an_address_is_a_filter():
    address = Address.read("?score_from=0,5&score_to=.75&regions_from=2&difference_to=-0.1")
    wanted = address.filter()
    assert (wanted.score, wanted.regions) == ((0.5, 0.75), (2, None))
    assert wanted.difference == (None, -0.1)
    assert Address.read("order=highest").order == "score-desc"
    with pytest.raises(ConfigError, match="score from: 'high' is not a number"):
        Address.read("score_from=high").filter()
    with pytest.raises(ConfigError, match="the first number is greater"):
        Address.read("score_from=1&score_to=0").filter()


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "٣", "", "9" * 400])
def test_odd_numbers_of_pages(text):
    assert Address.read(f"p={text}").page >= 1
