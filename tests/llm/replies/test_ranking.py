"""Answers of rerankers to scores in the order of the documents, or to a reason."""

import json

import pytest
from verdict_replies import ranking

from lavis.llm.endpoint.failures import Problem
from lavis.llm.replies.ranking import read_ranking


def read(answer, count=3):
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return read_ranking("k", text, count, lambda text: text, lambda status, body: Problem(
        "fatal", f"judged: {body['error']}"))  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        ranking([0.25, 0.5, 1.0]),
        ranking([0.25, 0.5, 1.0], name="score", container="data"),
        ranking([0.25, 0.5, 1.0], name="score", container="results")["results"],
    ],
    ids=["rerank", "score", "a list"],
)
def test_scores_are_put_back_by_index(answer):
    reply = read(answer)
    assert reply.ok and json.loads(reply.text) == [0.25, 0.5, 1.0]
    assert reply.prompt_tokens == (30 if isinstance(answer, dict) else 0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"index": 0, "score": 1}], "1 of 3 documents are scored"),
        ([{"index": 0, "score": 1}] * 3, "document 0 is scored twice"),
        ([{"index": 3, "score": 1}], "index 3 among 3 documents"),
        ([{"index": -1, "score": 1}], "index -1 among 3 documents"),
        ([{"index": True, "score": 1}], "index True among 3 documents"),
        ([{"index": "0", "score": 1}], "index '0' among 3 documents"),
        ([{"index": 0, "score": float("nan")}], "document 0 has no number"),
        ([{"index": 0, "score": "1"}], "document 0 has no number"),
        ([{"score": 1}], "[{"),
        ("oh", "oh"),
    ],
)
def test_scores_that_do_not_belong_to_the_documents_are_asked_for_again(rows, said):
    problem = read(rows)
    assert (problem.kind, problem.most_attempts) == ("transient", 2)
    assert said in problem.reason and problem.reason.startswith("malformed answer: no score for")


@pytest.mark.parametrize("text", ["", "<html>", "{", "null", "7", "{}"])
def test_other_answers_likewise(text):
    assert read(text).kind == "transient"


def test_an_error_inside_a_success_is_judged_as_one():
    assert read({"error": "no such model"}).reason == "judged: no such model"
