"""BoolQ, SQuAD and QuAC in published forms and the hub's; values by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_opening import make, questions, write_lines, write_parquet

from lavis.common.errors import RecordError

SQUAD = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval" / "squad.json"


def test_boolq_lower_cases_as_released(tmp_path):
    record = {"question": "is Rome big", "title": "R", "answer": True, "passage": "rome IS old."}
    write_lines(tmp_path / "dev.jsonl", [record, {**record, "answer": "maybe"}])
    dataset = make("boolq", tmp_path)
    assert dataset.question(0).prompts == ("Context: Rome is old.. Question: Is rome big? Answer:",)
    assert (dataset.question(0).gold, dataset.question(0).options) == ("yes", ("Yes", "No"))
    with pytest.raises(RecordError, match="wrong answer: 'maybe'"):
        dataset.question(1)


def test_squad_prompts_equal_the_published_ones(tmp_path):
    golden = json.loads(SQUAD.read_text())
    flat = [{"id": str(n), **item} for n, item in enumerate(golden["items"])]
    write_parquet(tmp_path / "hub" / "validation.parquet", flat)
    articles: list[dict] = []
    for item in flat:
        answers = [{"text": text, "answer_start": 0} for text in item["answers"]["text"]]
        entry = {"id": item["id"], "question": item["question"], "answers": answers}
        entry["is_impossible"] = not answers
        if not articles or articles[-1]["title"] != item["title"]:
            articles.append({"title": item["title"], "paragraphs": []})
        articles[-1]["paragraphs"].append({"context": item["context"], "qas": [entry]})
    own = tmp_path / "own"
    own.mkdir()
    (own / "dev-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": articles}))
    for folder in (tmp_path / "hub", own):
        found = [(int(q.question_id), *q.prompts) for q in questions(make("squad", folder))]
        assert found == [(entry["item"], entry["prompt"]) for entry in golden["prompts"]]
    corrected = questions(make("squad", own, protocol="corrected"))
    assert len(corrected) == len(flat)
    assert corrected[1].gold == ()
    assert corrected[1].scorer == "squad_v2"
    assert "Q: Where did the Normans live?\n\nA: Normandy" in corrected[2].prompts[0]
    assert corrected[3].prompts[0].count("Q: ") == 1  # another paragraph gives no example


def quac_article():
    def entry(name, question, answer, others):
        answers = [{"text": text, "answer_start": 0} for text in others]
        return {
            "id": name,
            "question": question,
            "orig_answer": {"text": answer, "answer_start": 0},
            "answers": answers,
            "followup": "y",
            "yesno": "x",
        }

    turns = [
        entry("d1_q#0", "Who?", "Ada", ["Ada", "Ada Lovelace"]),
        entry("d1_q#1", "Why?", "CANNOTANSWER", ["CANNOTANSWER"]),
        entry("d1_q#2", "When?", "1843", ["1843", "CANNOTANSWER"]),
    ]
    paragraph = {"id": "d1", "context": "Ada wrote in 1843. CANNOTANSWER", "qas": turns}
    return {
        "title": "Ada Lovelace",
        "section_title": "Notes",
        "background": "She was born in London.",
        "paragraphs": [paragraph],
    }


def test_quac_shows_introduction_or_passage(tmp_path):
    article = quac_article()
    (tmp_path / "val_v0.2.json").write_text(json.dumps({"data": [article]}))
    (released,) = questions(make("quac", tmp_path))
    assert released.prompts[0].endswith(
        "\n\nTitle: Ada Lovelace\nParagraph: Notes\n\nBackground: She was born in London.\n\n"
        "Q: Who?\n\nA: Ada\n\nQ: When?\n\nA:"
    )
    assert released.gold == ("1843",)
    first, second, third = questions(make("quac", tmp_path, protocol="corrected"))
    assert "Background: Ada wrote in 1843.\n\nQ: Who?\n\nA:" in first.prompts[0]
    assert first.gold == ("Ada", "Ada Lovelace")
    assert second.gold == third.gold == ()  # half of the annotators found no answer
    assert "Q: Who?\n\nA: Ada\n\nQ: Why?" in second.prompts[0]
    assert {q.scorer for q in (first, second)} == {"quac"} and released.scorer == "released"
    turns = article["paragraphs"][0]["qas"]
    turns[0]["answers"][1]["text"] = "Byron"  # no word in common: agreement 0, not asked
    (tmp_path / "val_v0.2.json").write_text(json.dumps({"data": [article]}))
    found = questions(make("quac", tmp_path, protocol="corrected"))
    assert [q.title for q in found] == ["Why?", "When?"]
    assert "Q: Who?\n\nA: Ada\n\nQ: Why?" in found[0].prompts[0]  # still an example
    row = {
        "dialogue_id": "d1",
        "wikipedia_page_title": article["title"],
        "section_title": "Notes",
        "background": article["background"],
        "context": article["paragraphs"][0]["context"],
        "turn_ids": [t["id"] for t in turns],
        "questions": [t["question"] for t in turns],
        "answers": {"texts": [[a["text"] for a in t["answers"]] for t in turns]},
        "orig_answers": {"texts": [t["orig_answer"]["text"] for t in turns]},
    }
    write_parquet(tmp_path / "hub" / "validation.parquet", [row])
    (hub,) = questions(make("quac", tmp_path / "hub"))
    assert hub.prompts == released.prompts


def told(dataset):
    """Return the questions by title, and why the other records hold none."""
    asked, reasons = {}, []
    for index in range(len(dataset)):
        try:
            question = dataset.question(index)
            asked[question.title] = question
        except RecordError as error:
            reasons.append(error.reason)
    return asked, reasons


MONEY = "for money"


BROKEN = [
    # what becomes of the second turn, why it is set aside, the answer that the third is shown
    ({"question": None}, "missing field: question", "Ada"),
    ({"question": 7}, "wrong type: question is int", "Ada"),
    (None, "wrong type: an entry of qas is NoneType", "Ada"),
    ({"orig_answer": None, "answers": None}, "missing", "Ada"),
    # question and answer of the dialogue are there: later turns are still shown them
    ({"answers": [{"text": None}]}, "missing field: text", MONEY),
    ({"answers": []}, "missing or empty list: answers", MONEY),
    ({"orig_answer": "CANNOTANSWER", "answers": [3]}, "wrong type: text is int", "Ada"),
]


@pytest.mark.parametrize(("change", "reason", "shown"), BROKEN)
@pytest.mark.parametrize("protocol", ["released", "corrected"])
def test_a_broken_turn_of_quac_costs_no_other_turn(tmp_path, change, reason, shown, protocol):
    article = quac_article()
    (dialogue,) = article["paragraphs"]
    first, second, _ = dialogue["qas"]
    second["orig_answer"]["text"], second["answers"] = MONEY, [{"text": MONEY}]
    third, fourth = ({**first, "id": q, "question": q} for q in ("Where?", "How?"))
    second = None if change is None else {**second, **change}
    dialogue["qas"] = [first, second, third, fourth]
    articles = [article, "no article", {**article, "title": None}]
    (tmp_path / "val_v0.2.json").write_text(json.dumps({"data": articles}))
    asked, reasons = told(make("quac", tmp_path, protocol=protocol))
    assert (
        f"\n\nQ: {'Who?' if shown == 'Ada' else 'Why?'}\n\nA: {shown}\n\nQ: Where?"
        in (asked["Where?"].prompts[0])
    )
    assert "A: Ada\n\nQ: How?" in asked["How?"].prompts[0]
    needs_it = protocol == "corrected" or "orig_answer" in (change or {}) or shown == "Ada"
    declined = change is not None and change.get("orig_answer") == "CANNOTANSWER"
    is_asked = protocol == "released" and (not needs_it or declined)
    assert any(reason in one for one in reasons) != is_asked
    assert sum("missing field: title" in one for one in reasons) == 4 - (change is None)


def test_a_hub_row_of_quac_is_set_aside_turn_by_turn(tmp_path):
    row = {
        "dialogue_id": "d1",
        "wikipedia_page_title": "Ada",
        "section_title": "Notes",
        "background": "She was born.",
        "context": "Ada wrote.",
        "questions": ["Who?", "Why?"],
        "answers": {"texts": [["Ada"], ["money"]]},
        "orig_answers": {"texts": ["Ada", "money"]},
    }
    changes = [
        {"questions": [None, "How?"]},
        {"questions": ["When?", "Where?"], "answers": {"texts": ["Ada", ["money"]]}},
        {"questions": None},
        {"answers": {"texts": [["a"]]}},  # whose answer it is, nobody can tell
    ]
    write_lines(tmp_path / "validation.jsonl", [row, *({**row, **change} for change in changes)])
    asked, reasons = told(make("quac", tmp_path, protocol="corrected"))
    assert list(asked) == ["Who?", "Why?", "How?", "Where?"]
    assert "Q: When?\n\nA: Ada\n\nQ: Where?" in asked["Where?"].prompts[0]
    assert reasons == [
        "missing field: question",
        "missing or empty list: answers",
        "missing or empty list: questions",
        *["questions, answers and orig_answers differ in number"] * 2,
    ]


@pytest.mark.parametrize(
    "entry",
    [None, "text", {"answers": "Rome"}, {"answers": {"text": "Rome"}}, {"answers": ["", 1]}],
)
def test_a_broken_question_of_squad_costs_no_other(tmp_path, entry):
    def good(n):
        return {"id": str(n), "question": f"Who {n}?", "answers": [{"text": "Rome"}]}

    bad = {"id": "x", "question": "Who?", **entry} if isinstance(entry, dict) else entry
    paragraphs = [{"context": "Rome is old.", "qas": [good(1), bad, good(2)]}, None]
    data = [{"title": "Rome", "paragraphs": paragraphs}, {"title": "R", "paragraphs": 3}]
    (tmp_path / "dev-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": data}))
    asked, reasons = told(make("squad", tmp_path, protocol="corrected"))
    assert list(asked) == ["Who 1?", "Who 2?"]
    assert "A: Rome\n\nQ: Who 2?" in asked["Who 2?"].prompts[0]
    assert len(reasons) == 3


def test_squad_takes_no_word_for_a_truth_value(tmp_path):
    """The word "false" would be true, and its question one that nothing answers."""
    entry = {"question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]}
    given = {"a": False, "b": "false", "c": True, "d": None, "e": 0}
    entries = [{"id": name, **entry, "is_impossible": value} for name, value in given.items()]
    article = {"title": "t", "paragraphs": [{"context": "c", "qas": entries}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps({"data": [article]}))
    dataset = make("squad", tmp_path, protocol="corrected")
    golds = {}
    for index in range(len(dataset)):
        try:
            question = dataset.question(index)
        except RecordError as error:
            assert error.reason == "wrong is_impossible: 'false', expected true or false"
            continue
        golds[question.question_id] = question.gold
    assert golds == {"a": ("Ann",), "c": (), "d": ("Ann",), "e": ("Ann",)}
