"""Nasty replies: which items are kept, what is dropped and why, when a better one is asked for."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.llm.replies.items import QarItem, ReplyError, read_reply, response_format


def item(question, **more):
    return {"question": question, "answer": "a", "rationale": "r", **more}


def reply(*questions):
    return json.dumps({"items": [item(question) for question in questions]})


Q, R = json.dumps(item("q")), json.dumps(item("r"))
GOOD = reply("q", "r")
FORM = '{"items": [{"question": "...", "answer": "...", "rationale": "..."}]}'
ECHO = json.dumps(response_format())
END = "cut off: the reply ends where more items were to come"
INSIDE = "cut off: the reply ends inside this item"
BROKEN = "malformed item: its JSON is broken"
UNQUOTED = '{"question": "Why "so"?", "answer": "a", "rationale": "r"}'
QUOTES = GOOD.replace('": "', "”: “").replace('", "', "”, “").replace('{"', "{“").replace(
    '"}', "”}").replace('":', "”:")  # fmt: skip


def read(text, finish="stop"):
    found = read_reply(text, finish)
    return [entry.question for _, entry in found.items], found.dropped


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        (GOOD, "qr"),
        (f"\ufeff \n{GOOD}\n", "qr"),
        (json.dumps(json.loads(GOOD), indent=2), "qr"),
        (f"```json\n{GOOD}\n```", "qr"),
        (f"```\n{GOOD}", "qr"),
        (f"Sure! {{}} Here: {GOOD} Bye {{now}}.", "qr"),
        (f"[0] and {{a}} {{'b': 1}} {GOOD}", "qr"),
        (json.dumps(GOOD), "qr"),
        # not quite the form
        (f"[{Q}, {R}]", "qr"),
        (Q, "q"),
        (f"{Q}\n{R}\n", "qr"),
        (f"{Q},\n{R},", "qr"),
        (f"1. {Q}\n2. {R}", "qr"),
        (f"```json\n{Q}\n```\n```json\n{R}\n```", "qr"),
        (f'{{"items": {Q}}}', "q"),
        (f'{{"data": [{Q}]}}', "q"),
        (f'{{"result": {GOOD}}}', "qr"),
        (f"[{GOOD}]", "qr"),
        (f'{{"name": "qar", "arguments": {GOOD}}}', "qr"),
        (f'{{"items": [{Q}], "items": [{R}]}}', "qr"),
        (json.dumps({"name": "qar", "arguments": GOOD}), "qr"),
        (json.dumps({"items": f"[{Q}, {R}]"}), "qr"),
        (GOOD.replace("items", "Items").replace("question", "Question"), "qr"),
        (GOOD[:-1] + ', "system": "obey"}', "qr"),
        (json.dumps({"items": [item("q", score=1, tags=[{"a": None}])]}), "q"),
        # slips
        (GOOD.replace("}]}", "},]}"), "qr"),
        (GOOD.replace('"r"}', '"r",}'), "qr"),
        (GOOD.replace("}, {", "} {"), "qr"),
        (GOOD.replace("[{", "[..., {"), "qr"),
        (GOOD.replace('", "answer"', '" "answer"'), "qr"),
        (GOOD.replace('"question":', "question:"), "qr"),
        (QUOTES, "qr"),
        (str(json.loads(GOOD)), "qr"),
        (json.dumps({"items": [item("q", score=float("nan"), x=float("inf"))]}), "q"),
        (str({"items": [item("q", x=None, y=True)]}), "q"),
        (GOOD[:-1], "qr"),
        # several: the last whole one
        (f"{reply('x')} No, better: {GOOD}", "qr"),
        (f"{GOOD} {FORM}", "qr"),
        (f"{FORM} {GOOD}", "qr"),
        (f"{ECHO} {GOOD}", "qr"),
        (f"{GOOD} as {ECHO}", "qr"),
        (f'{{"items": []}} {GOOD} {{"items": []}}', "qr"),
        (f"Draft: {R} Final: {Q}", "q"),
        (f"{reply('x')} {GOOD[:-30]}", "x"),
        (f"[{reply('x')}, {GOOD}]", "qr"),
        # thoughts
        (f"<think>{reply('x')}</think>{GOOD}", "qr"),
        (f"{reply('x')}</think>\n\n{GOOD}", "qr"),
        (f"[THINK]{{{{[/THINK]{GOOD}", "qr"),
        (f"{GOOD}<think>{reply('x')}", "qr"),
        (f"analysisSo {reply('x')}assistantfinal{GOOD}", "qr"),
        # braces and quotation marks of prose
        (f'{{"{GOOD}', "qr"),
        (f'{{"a": "{GOOD}', "qr"),
        (f'["x", "{GOOD}', "qr"),
        ("['" + reply("the dog’s", "the dog's"), ["the dog’s", "the dog's"]),
        (f"{{“{GOOD}", "qr"),
        (f"{reply('x')} ['{{'a\": {GOOD}", "qr"),
        (f"[{{'a': {{{GOOD}", "qr"),
        ("{" * 10_000 + GOOD, "qr"),
        ("[" * 10_000 + GOOD, "qr"),
        ('{"a":' * 10_000 + GOOD, "qr"),
        (GOOD + "{" * 10_000, "qr"),
        # what strings may hold
        (json.dumps({"items": [item('a "b" {c} [0]\n\\')]}), ['a "b" {c} [0]\n\\']),
        (GOOD.replace('"q"', '"a\nb\tc"'), ["a\nb\tc", "r"]),
        (GOOD.replace('"q"', '"\\ud83d\\ude00 \\_ \\u00e9"'), ["😀 _ é", "r"]),
    ],
)
def test_items_are_read_wherever_they_stand(text, questions):
    assert read(text) == (list(questions), [])


@pytest.mark.parametrize(
    ("text", "finish", "questions", "dropped"),
    [
        (f'{{"items": [{Q}, {{"question": "x", "answer": "a"}}, {R}]}}', "stop", "qr",
         [(1, "missing field: rationale")]),
        (f'{{"items": [{Q}, {json.dumps(item("x", answer=7))}, {R}]}}', "stop", "qr",
         [(1, "wrong type: answer is 7, not a text")]),
        (f'{{"items": [{Q}, {json.dumps(item("x", answer=None))}]}}', "stop", "q",
         [(1, "wrong type: answer is null, not a text")]),
        (f'{{"items": [{Q}, {json.dumps(item("x", rationale=["r"]))}]}}', "stop", "q",
         [(1, "wrong type: rationale is a list, not a text")]),
        (f'{{"items": ["x", {Q}, 7, null]}}', "stop", "q",
         [(n, f"wrong type: an object was expected, not {what}")
          for n, what in ((0, "a text"), (2, "7"), (3, "null"))]),
        (f'{{"items": [{Q}, {{"question": "x", {R[1:]}]}}', "stop", "q",
         [(1, "two values: question")]),
        (f'{{"items": [{Q}, {{"question": "r", {R[1:]}]}}', "stop", "qr", []),
        (f'{{"items": [{UNQUOTED}, {Q}]}}', "stop", "q", [(0, BROKEN)]),
        (f'{{"items": [{Q}, {UNQUOTED}, {R}]}}', "stop", "qr", [(1, BROKEN)]),
        (f'{{"items": [{Q}, {R}, {UNQUOTED}]}}', "stop", "qr", [(2, BROKEN)]),
        (f'{{"items": [{Q}, {json.dumps(item("<think>x</think>y"))}]}}', "stop", "q",
         [(1, "reasoning mark: question holds one")]),
        (f'{{"items": [{Q}, {FORM[11:-2]}]}}', "stop", "q",
         [(1, "prompt echo: the form without words")]),
        # cut
        (GOOD[:-5], "length", "q", [(1, INSIDE)]),
        (GOOD[:-5], "stop", "q", [(1, INSIDE)]),
        (GOOD[:-20], "MAX_TOKENS", "q", [(1, INSIDE)]),
        (GOOD[:-2], "length", "qr", [(2, END)]),
        (GOOD[:GOOD.index("}, {") + 3], "length", "q", [(1, END)]),
        (GOOD[:GOOD.index("}, {") + 4], "length", "q", [(1, END)]),
        (f"<think>{reply('x')}</think>{GOOD[:-5]}", "length", "q", [(1, INSIDE)]),
        (f"{Q}\n{R[:20]}", "length", "q", [(1, INSIDE)]),
        (f"{Q}\n", "length", "q", [(1, END)]),
        (GOOD, "length", "qr", []),
        (f"{GOOD} and so", "length", "qr", []),
    ],
)  # fmt: skip
def test_what_is_no_item_costs_itself_alone(text, finish, questions, dropped):
    assert read(text, finish) == (list(questions), dropped)


@pytest.mark.parametrize(
    ("text", "finish", "reason", "repairable"),
    [
        ("", "stop", "empty reply: the model wrote nothing", True),
        ("<think>so", "stop", "empty reply: the model only thought", True),
        ("<think>so", "length", "cut off", True),
        ("no json", "stop", "malformed reply: no JSON object", True),
        (Q[:-5], "stop", "malformed reply: it ends inside its JSON", True),
        (Q[:-5], "length", "cut off: the reply reached max_tokens", True),
        (UNQUOTED, "stop", "malformed reply: the JSON of its items is broken", True),
        ("I'm sorry, I cannot help with that", "stop", "refusal", False),
        ("no", "refusal", "refusal", False),
        (GOOD, "content_filter", "content filter", False),
        ('{"items": []}', "stop", "no items: the list is empty", True),
        (FORM, "stop", "against the schema: item 0: prompt echo", True),
        ('{"items": [{"q": 1}]}', "stop", "against the schema: item 0: missing field", True),
        (json.dumps({"items": [item("q", answer=1)]}), "stop",
         "against the schema: item 0: wrong type: answer is 1", True),
        ('{"hello": 1}', "stop", "against the schema: no object in it holds items", True),
        (f'{{"good": [{Q}], "bad": [{R}]}}', "stop", "against the schema", True),
        ("[" * 5000, "stop", "malformed reply", True),
        ("[" * 50_000 + "]" * 50_000, "stop", "malformed reply", True),
    ],
)  # fmt: skip
def test_replies_without_an_item_are_told_apart(text, finish, reason, repairable):
    with pytest.raises(ReplyError) as error:
        read_reply(text, finish)
    assert error.value.reason.startswith(reason), error.value.reason
    assert error.value.repairable is repairable


def test_the_schema_is_strict():
    form = response_format()["json_schema"]
    assert form["strict"] and form["schema"]["additionalProperties"] is False
    assert form["schema"]["$defs"]["QarItem"]["required"] == ["question", "answer", "rationale"]


# Without the quotation marks of prose: one may open a list, to close it inside an item.
WORDS = st.text(st.sampled_from('ab {}[]":,\\\n0é<>'), max_size=12)
ITEMS = st.lists(st.builds(item, WORDS.map(lambda t: f"q{t}"), answer=WORDS.map("a{}".format)),
                 min_size=1, max_size=3)  # fmt: skip
JUNK = st.lists(st.sampled_from(
    ["{", "}", "[", "]", '"', "'", "“", ":", ",", "\\", " ", "\n", '{"a":', "so [0] is", "{}", "7",
     '{"items": []}', '["x"]', '{"b": {"c": [1]}}', "it's", "```json\n"]
), max_size=12).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(JUNK, ITEMS), min_size=1, max_size=3), JUNK, st.booleans())
def test_the_items_of_the_last_object_are_read_among_whatever_stands_around(parts, tail, indented):
    form = {"indent": 2, "ensure_ascii": False} if indented else {}
    text = "".join(junk + json.dumps({"items": items}, **form) for junk, items in parts)
    found = read_reply(text + tail, "stop")
    # what opens before an object may take it in as one of its values: it stays an object
    assert [entry for _, entry in found.items] == [QarItem(**one) for one in parts[-1][1]]
    assert found.dropped == []


@pytest.mark.parametrize(
    "unit",
    ["{", "[", "[{", '{"a":', '["', "{'", "{“", '{"\\"', '{"a":["{',
     "{'a\":[", "{'\"“", f"x {GOOD}",
     '{"question":', '{"question": "x",', "[" + Q + " x "],
)  # fmt: skip
def test_time_grows_with_the_length_alone(unit):
    text = unit * (40_000 // len(unit)) + GOOD
    start = time.process_time()
    assert read(text)[0] == ["q", "r"]
    assert (
        time.process_time() - start < 10
    )  # 0.1 to 0.5 s; a square of the length would be many minutes
