"""Verdicts from a scripted server: the right score, or a refusal with what to do."""

import json
import logging

import pytest
from verdict_replies import place, ranking, text_of, with_logprobs, yes_or_no

from lavis.common.errors import ConfigError
from lavis.llm.base import image_part
from lavis.llm.client import build_client
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.ledger import read_totals
from lavis.llm.verdicts.asking import ImageQuestion
from lavis.llm.verdicts.config import VerdictConfig
from lavis.llm.verdicts.modes import JudgeAsker, LogprobAsker, RankAsker
from lavis.llm.verdicts.words import VerdictWords

YES, NO = VerdictWords.of(["Yes"]), VerdictWords.of(["No"])
SEEN = [image_part(b"\x89PNG one")]


def questions(*texts, image=0):
    return [ImageQuestion(image, SEEN, text) for text in texts]


@pytest.fixture
def ask(settings, tmp_path):
    """Return a function that asks a server about texts, and returns the verdicts."""

    def run(server, *texts, folder="run", asked=None, llm=(), tokenizer=None, **options):
        config = VerdictConfig(llm=settings(server, max_retry_wait=0.02, **dict(llm)), **options)
        with build_client(config.llm, tmp_path / folder) as client:
            if config.mode == "judge":
                asker = JudgeAsker(client, config)
            elif config.mode == "logprobs":
                asker = LogprobAsker(client, config, YES, NO, tokenizer=tokenizer)
            else:
                asker = RankAsker(client, config)
            return asker.verdicts(asked or questions(*texts))

    return run


# P(yes) from logprobs


def test_a_request_is_an_image_and_a_prompt_whose_first_tokens_are_reported(serve, ask):
    server = serve(lambda body, n: yes_or_no(0.6, 0.3))
    (verdict,) = ask(server, "is it?")
    (body,) = server.bodies
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 8)
    assert body["temperature"] == 0 and "top_p" not in body and "seed" not in body
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["messages"] == [
        {"role": "user", "content": [*SEEN, {"type": "text", "text": "is it?"}]}
    ]
    assert verdict.score == pytest.approx(2 / 3)
    assert verdict.note() == {
        "p_yes_low": pytest.approx(0.6 / 1.0), "p_yes_high": pytest.approx(0.7),
        "mass": pytest.approx(0.9), "reason": "",
    }  # fmt: skip


def test_a_list_cut_at_20_in_any_order_is_scored_within_its_bounds(serve, ask):
    rest = {f"w{n}": 0.005 for n in range(18)}
    top = {**rest, "No": 0.5, "Yes": 0.25}
    server = serve(lambda body, n: with_logprobs("No", [place("No", top)]))
    (verdict,) = ask(server, "q")
    note = verdict.note()
    assert verdict.score == pytest.approx(1 / 3)
    assert note["p_yes_low"] == pytest.approx(0.25 / (0.75 + 0.025))
    assert note["p_yes_high"] == pytest.approx(0.275 / 0.775)


def test_yes_missing_from_the_list_is_not_0(serve, ask):
    rest = {f"w{n}": 0.004 for n in range(19)}
    server = serve(lambda body, n: with_logprobs("No", [place("No", {"No": 0.9, **rest})]))
    (verdict,) = ask(server, "q")
    assert verdict.columns["p_yes_low"] == 0
    assert verdict.columns["p_yes_high"] == pytest.approx(0.024 / 0.924)
    assert verdict.score == pytest.approx(0.012 / 0.912)
    assert verdict.columns["reason"].startswith("yes not among the 20 likeliest tokens ('No' 0.9,")


def test_neither_listed_is_no_verdict(serve, ask):
    server = serve(lambda body, n: with_logprobs("The", [place("The", {"The": 0.9, "A": 0.05})]))
    (verdict,) = ask(server, "q")
    assert verdict.note() == {
        "reject": "no verdict: yes and no not among the 2 likeliest tokens ('The' 0.9, 'A' 0.05)"
    }


@pytest.mark.parametrize("before", [["\n\n"], ['"'], ["**"], ["<think>", "\n\n", "</think>", " "]])
def test_what_comes_before_the_first_word_is_passed(serve, ask, before):
    server = serve(lambda body, n: yes_or_no(0.8, 0.1, before=before, after=["."]))
    assert ask(server, "q")[0].score == pytest.approx(8 / 9)


def test_a_model_that_thinks_first_is_read_after_its_thought(serve, ask):
    before = ["<think>", "No", " way", "</think>", "\n\n"]
    server = serve(lambda body, n: yes_or_no(0.8, 0.1, before=before))
    assert ask(server, "q", max_tokens=500, thinking=True)[0].score == pytest.approx(8 / 9)
    assert "chat_template_kwargs" not in server.bodies[0]


def test_one_that_does_not_finish_its_thought_is_refused_with_what_to_do(serve, ask):
    body = with_logprobs("<think>No", [place("<think>", {"<think>": 0.9})], finish="length")
    server = serve(lambda sent, n: body)
    (verdict,) = ask(server, "q")
    assert verdict.reject.startswith("cut off: max_tokens was used up before an answer began")
    assert verdict.again  # the server has answered nothing yet


def test_token_variants_are_summed(serve, ask):
    top = {"Yes": 0.3, " yes": 0.2, "YES": 0.1, "\u0120No": 0.2, "no": 0.1}
    server = serve(lambda body, n: with_logprobs("Yes", [place("Yes", top)]))
    assert ask(server, "q")[0].score == pytest.approx(6 / 9)


@pytest.mark.parametrize("llm", [{"concurrency": 1}, {"concurrency": 8}])
def test_a_server_without_logprobs_is_refused_on_its_first_reply(serve, ask, llm, tmp_path):
    server = serve(lambda body, n: "Yes")
    for start in (1, 2):
        with pytest.raises(ConfigError, match=r"without logprobs.*model.mode=judge.*rerank.*vLLM"):
            ask(server, *(f"q{n}" for n in range(20)), llm=llm)
        assert len(server.bodies) == start
    server.answer = lambda body, n: yes_or_no(0.6, 0.3)  # the cause is mended
    assert all(one.score for one in ask(server, *(f"q{n}" for n in range(20)), llm=llm))


def test_so_is_one_that_takes_no_such_field(serve, ask):
    def answer(body, n):
        if "logprobs" in body or "top_logprobs" in body:
            message = "logprobs is not supported with this model"
            return 400, {"error": {"message": message, "param": "logprobs"}}
        return "Yes"

    with pytest.raises(ConfigError, match="the server answers without logprobs"):
        ask(serve(answer), "a", "b", "c")


def test_a_later_reply_without_logprobs_is_asked_for_again(serve, ask):
    server = serve(lambda body, n: "Yes" if text_of(body) == "b" else yes_or_no(0.6, 0.3))
    first, second = ask(server, "a", "b")
    assert first.score and (second.reject, second.again) == (
        "no logprobs: this answer has none, others had", True,
    )  # fmt: skip
    server.answer = lambda body, n: yes_or_no(0.6, 0.3)
    assert [one.again for one in ask(server, "a", "b")] == [False, False]
    assert server.asked.total() == 3


def test_too_many_logprobs_for_the_server_are_a_setting_to_mend(serve, ask):
    message = "Requested sample logprobs of 50, which is greater than max allowed: 20"
    server = serve(lambda body, n: (400, {"error": {"message": message}}))
    with pytest.raises(ConfigError, match=r"max allowed: 20; lower top_logprobs"):
        ask(server, "a", "b", top_logprobs=50)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("mode", ["prefill", None])
def test_where_bounds_are_wide_the_answer_may_be_begun(serve, ask, mode):
    def answer(body, n):
        if body["messages"][-1]["role"] == "assistant":
            assert body["messages"][-1]["content"] == "Answer:"
            assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
            return yes_or_no(0.7, 0.25, rest={"x": 0.001})
        wide = with_logprobs("The", [place("The", {"The": 0.6, "Yes": 0.2, "No": 0.1})])
        return wide if text_of(body) == "b" else yes_or_no(0.7, 0.2995, rest={"x": 1e-4})

    server = serve(answer)
    first, second = ask(server, "a", "b", retry=mode)
    assert first.score == pytest.approx(0.7 / 0.9995) and first.columns["reason"] == ""
    assert second.score == pytest.approx(0.7 / 0.95 if mode else 2 / 3)
    assert second.columns["reason"] == ("asked again: prefill" if mode else "")
    assert len(server.bodies) == (3 if mode else 2)


@pytest.mark.parametrize(
    ("first", "options", "again"),
    [
        ({"Yes": 0.6, "No": 0.3, "x": 0.02}, {"max_width": 0.05}, True),  # 0.08 wide
        ({"Yes": 0.6, "No": 0.3, "x": 0.02}, {"max_width": 0.1}, False),
        ({"x": 0.55, "Yes": 0.3, "No": 0.14, "y": 1e-6}, {"min_mass": 0.5}, True),
        ({"x": 0.55, "Yes": 0.3, "No": 0.14, "y": 1e-6}, {"min_mass": 0.4}, False),
    ],
)
def test_what_is_wide_or_hardly_a_verdict_is_a_setting(serve, ask, first, options, again):
    def answer(body, n):
        if body["messages"][-1]["role"] == "assistant":
            assert body["messages"][-1]["content"] == "In short:"
            return yes_or_no(0.7, 0.2999, rest={"x": 1e-6})
        return with_logprobs("w", [place(max(first, key=first.get), first)])

    server = serve(answer)
    (verdict,) = ask(server, "q", retry="prefill", prefill="In short:", **options)
    assert len(server.bodies) == 1 + again
    assert (verdict.score == pytest.approx(0.7 / 0.9999)) == again


def test_a_second_answer_that_fails_leaves_the_first_for_now(serve, ask):
    def answer(body, n):
        if body["messages"][-1]["role"] == "assistant":
            return 500, {"error": {"message": "boom"}}
        return with_logprobs("Yes", [place("Yes", {"Yes": 0.5, "No": 0.3, "The": 0.1})])

    (verdict,) = ask(serve(answer), "q", retry="prefill", llm={"max_attempts": 1})
    assert verdict.score == pytest.approx(0.5 / 0.8) and verdict.again
    assert verdict.note()["again"] is True


def test_a_second_answer_that_says_less_is_not_taken(serve, ask):
    def answer(body, n):
        if body["messages"][-1]["role"] == "assistant":
            return with_logprobs("x", [place("x", {"x": 0.9, "Yes": 0.01, "No": 0.02})])
        return with_logprobs("Yes", [place("Yes", {"Yes": 0.5, "No": 0.3, "The": 0.1})])

    (verdict,) = ask(serve(answer), "q", retry="prefill")
    assert verdict.score == pytest.approx(0.5 / 0.8)


class Tokenizer:
    def encode(self, text, add_special_tokens):
        return {"Yes": [5], " Yes": [6], "No": [9]}.get(text, [1, 2])


def test_or_the_tokens_are_requested_by_their_ids(serve, ask):
    def answer(body, n):
        if "logprob_token_ids" in body:
            assert body["logprob_token_ids"] == [5, 6, 9]
            top = {"Yes": 0.02, " Yes": 0.01, "No": 0.01, "The": 0.6}
            return with_logprobs("The", [place("The", top)])
        return with_logprobs("The", [place("The", {"The": 0.6, "A": 0.1})])

    server = serve(answer)
    (verdict,) = ask(server, "q", retry="token_ids", llm={"tokenizer": "t"}, tokenizer=Tokenizer())
    assert verdict.score == pytest.approx(0.75)  # all tokens of both are known: no bounds are left
    assert verdict.columns["p_yes_low"] == verdict.columns["p_yes_high"] == verdict.score


# Failures, money


def test_refusals_are_rejects_and_troubles_are_asked_about_again(serve, ask):
    long = (400, {"error": {"message": "maximum context length is 10", "code": "context"}})

    def answer(body, n):
        text = text_of(body)
        return {"long": long, "down": (500, {"error": {"message": "boom"}})}.get(
            text, yes_or_no(0.6, 0.3)
        )

    server = serve(answer)
    notes = [one.note() for one in ask(server, "a", "long", "down", llm={"max_attempts": 2})]
    assert notes[0]["mass"] and notes[1]["reject"].startswith("too long: HTTP 400")
    assert "again" not in notes[1]
    assert notes[2] == {"reject": "HTTP 500: boom", "again": True}
    server.bodies.clear()
    server.answer = lambda body, n: yes_or_no(0.6, 0.3)
    assert all(one.score for one in ask(server, "a", "long", "down"))
    assert sorted(text_of(body) for body in server.bodies) == ["down", "long"]


def test_refusals_before_any_answer_may_tell_of_the_server(serve, ask):
    error = (400, {"error": {"message": "maximum context length is 10"}})
    server = serve(lambda body, n: error)
    assert [one.again for one in ask(server, "a", "b")] == [True, True]
    with pytest.raises(EndpointStopped, match="in a row failed alike"):
        ask(server, *(f"q{n}" for n in range(40)))


def test_a_busy_server_is_waited_for_and_nothing_is_paid_twice(serve, ask, tmp_path):
    def answer(body, n):
        busy = (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
        return busy if n == 1 else yes_or_no(0.6, 0.3)

    server = serve(answer)
    texts = [f"q{n}" for n in range(9)]
    assert all(one.score for one in ask(server, *texts))
    assert all(count == 1 for count in server.finished.values()) and len(server.bodies) == 18
    before = read_totals(tmp_path / "run")
    assert all(one.score for one in ask(server, *texts))
    assert len(server.bodies) == 18 and read_totals(tmp_path / "run") == before


def test_a_cut_answer_is_kept_as_its_first_word_is_whole(serve, ask):
    body = yes_or_no(0.6, 0.3, after=[", the", " image"])
    body["choices"][0]["finish_reason"] = "length"
    server = serve(lambda sent, n: body)
    assert ask(server, "q") == ask(server, "q")
    assert len(server.bodies) == 1


# Judges


def grade(verdict, reason="r"):
    return json.dumps({"reason": reason, "verdict": verdict})


def test_a_judge_gives_grades_on_a_scale_of_their_own(serve, ask, caplog):
    server = serve(lambda body, n: grade(4, "a detail is wrong"))
    with caplog.at_level(logging.WARNING):
        (verdict,) = ask(server, "q", mode="judge")
    assert verdict.score == 0.75
    assert verdict.note() == {
        "scale": "judge", "verdict": 4.0, "verdict_written": 4, "mass": None,
        "reason": "a detail is wrong",
    }  # fmt: skip
    assert "grades are as the judge writes them" in caplog.text
    (body,) = server.bodies
    assert body["response_format"]["type"] == "json_schema" and body["max_tokens"] == 400
    ask(server, "q", mode="judge")
    assert len(server.bodies) == 1  # though there were no logprobs


def test_a_judge_without_logprobs_at_all_is_asked_without(serve, ask):
    def answer(body, n):
        if "logprobs" in body:
            return 400, {"error": {"message": "Unsupported parameter: logprobs"}}
        assert "top_logprobs" not in body
        return grade(2)

    assert ask(serve(answer), "q", mode="judge")[0].score == 0.25


def test_a_bad_verdict_is_shown_to_the_judge_once(serve, ask):
    def answer(body, n):
        if len(body["messages"]) == 3:
            assert body["messages"][1] == {"role": "assistant", "content": grade(7)}
            assert "no whole number from 1 to 5" in body["messages"][2]["content"]
            return grade(5)
        return grade(7) if text_of(body) == "b" else grade(1)

    server = serve(answer)
    assert [one.score for one in ask(server, "a", "b", mode="judge")] == [0.0, 1.0]
    assert len(server.bodies) == 3


def test_one_that_stays_bad_is_a_reject(serve, ask):
    server = serve(lambda body, n: "Quite good." if "word" in str(body) else grade(3))
    first, second = ask(server, "a", "a word", mode="judge")
    assert first.score == 0.5
    assert second.note() == {"reject": "bad verdict: none in 'Quite good.'"}
    assert len(server.bodies) == 3


# Rerankers


@pytest.mark.parametrize(
    ("mode", "path", "fields"),
    [("rerank", "/v1/rerank", {"query", "documents", "top_n", "model"}),
     ("score", "/score", {"queries", "documents", "model"})],
)  # fmt: skip
def test_texts_of_one_image_are_ranked_in_one_request(serve, ask, mode, path, fields, tmp_path):
    scores = {"a": 0.25, "b": 0.75, "c": 0.5, "d": 0.125}

    def answer(body, n):
        found = [scores[text] for text in body["documents"]]
        name, container = ("relevance_score", "results") if mode == "rerank" else ("score", "data")
        return ranking(found, name=name, container=container)

    server = serve(answer)
    asked = [*questions("a", "b"), *questions("d", image=1), *questions("c")]
    verdicts = ask(server, mode=mode, asked=asked)
    assert [one.score for one in verdicts] == [0.25, 0.75, 0.125, 0.5]
    assert verdicts[0].note() == {"scale": mode}
    assert set(server.paths) == {path} and len(server.bodies) == 2
    body = server.bodies[0]
    assert set(body) == fields and body["documents"] == ["a", "b", "c"]
    query = body["query" if mode == "rerank" else "queries"]
    assert query["content"][0] == SEEN[0] and query["content"][1]["text"].startswith("Which text")
    totals = read_totals(tmp_path / "run")
    assert (totals.requests, totals.prompt_tokens, totals.completion_tokens) == (2, 60, 0)
    ask(server, mode=mode, asked=asked)
    assert len(server.bodies) == 2


def test_logits_need_a_word_that_they_are(serve, ask):
    server = serve(lambda body, n: ranking([-2.0, 3.0]))
    with pytest.raises(ConfigError, match=r"scores a text with -2, .*set model.sigmoid=true"):
        ask(server, "a", "b", mode="rerank")
    scores = [one.score for one in ask(server, "a", "b", mode="rerank", sigmoid=True)]
    assert scores == [pytest.approx(0.11920292), pytest.approx(0.95257413)]
    assert len(server.bodies) == 1


def test_scores_that_stay_short_are_asked_for_at_the_next_start(serve, ask):
    server = serve(lambda body, n: ranking([0.5]))
    first, second = ask(server, "a", "b", mode="rerank")
    assert first.again and "1 of 2 documents are scored" in second.reject
    server.answer = lambda body, n: ranking([0.5, 0.25])
    assert [one.score for one in ask(server, "a", "b", mode="rerank")] == [0.5, 0.25]


def test_a_server_without_a_reranker_is_named(serve, ask):
    server = serve(lambda body, n: (404, {"detail": "Not Found"}))
    with pytest.raises(ConfigError, match=r"nothing answers at http://127\S+/v1/rerank"):
        ask(server, "a", mode="rerank")


def test_requests_are_no_larger_than_allowed(serve, ask):
    server = serve(lambda body, n: ranking([0.5] * len(body["documents"])))
    ask(server, *"abcde", mode="rerank", max_documents=2, query="Which?")
    assert {body["query"]["content"][-1]["text"] for body in server.bodies} == {"Which?"}
    assert sorted(len(body["documents"]) for body in server.bodies) == [1, 2, 2]
