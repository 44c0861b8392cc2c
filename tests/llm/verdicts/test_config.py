"""What the settings of verdicts refuse."""

import pytest

from lavis.common.errors import ConfigError
from lavis.llm.verdicts.config import VerdictConfig

SERVER = {"backend": "openai", "model": "m", "base_url": "http://h/v1"}


@pytest.mark.parametrize(
    ("llm", "more", "said"),
    [
        ({"backend": "transformers", "model": "m"}, {"mode": "judge"}, "which has no mode 'judge'"),
        ({"backend": "scripted"}, {}, "llm.backend is scripted, which has no mode 'logprobs'"),
        ({**SERVER, "mode": "batch"}, {}, "llm.mode is batch"),
        (SERVER, {"retry": "token_ids"}, "retry is token_ids, which needs llm.tokenizer"),
        (SERVER, {"top_logprobs": 1}, "greater than or equal to 2"),
        (SERVER, {"max_width": 2}, "less than or equal to 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(llm, more, said):
    with pytest.raises((ConfigError, ValueError), match=said):
        VerdictConfig(llm=llm, **more)


def test_a_judge_may_write_more_than_a_word():
    sizes = [VerdictConfig(llm=SERVER, mode=mode).reply_tokens for mode in ("logprobs", "judge")]
    assert sizes == [8, 400]
    assert VerdictConfig(llm=SERVER, mode="judge", max_tokens=9).reply_tokens == 9
    assert VerdictConfig(llm={"backend": "scripted"}, mode="judge").llm.backend == "scripted"
