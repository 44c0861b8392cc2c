"""Every benchmark in the form its authors publish, and as the hub holds it; values by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.config import BuildInfo, SplitSource

SQUAD = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval" / "squad.json"


def make(benchmark, data_dir, storage=(), **options):
    build_info = BuildInfo(annotations={"test": SplitSource(storage=list(storage))})
    config = BenchmarkConfig(
        benchmark=benchmark, data_dir=str(data_dir), build_info=build_info, **options
    )
    return BenchmarkDataset(config, "test")


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def write_parquet(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)


def questions(dataset):
    return [dataset.question(index) for index in range(len(dataset))]


def write_imagenetvc(folder):
    rows = {
        "color": "tench,What color is a tench?,green\r\ngoldfish,What color is it?,orange\r\n",
        "shape": "shark,What shape is its fin?,triangle\n",
        "material": "gown,What is it made of?,cotton\n",
        "component": "tench,Does it have fur?,no\n",
        "others": "a,Is it big?,yes\nb,How many legs?,4\nc,Long or short?,short\nd,,\n",
    }
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text(f"category,question,answer\r\n{lines}", newline="")


def test_imagenetvc_asks_five_prompts_in_five_subsets(tmp_path):
    write_imagenetvc(tmp_path)
    dataset = make("imagenetvc", tmp_path)
    assert len(dataset) == 9
    first = dataset.question(0)
    assert first.prompts == (
        "What color is a tench?",
        "What color is a tench? Answer:",
        "What color is a tench? The answer is",
        "Question: What color is a tench? Answer:",
        "Question: What color is a tench? The answer is",
    )
    assert (first.gold, first.group, first.options[:2]) == ("green", "color", ("brown", "black"))
    kinds = [dataset.question(n).meta["answer_set"] for n in (5, 6, 7)]
    assert kinds == ["others_yes", "others_number", "others_other"]
    with pytest.raises(RecordError, match="empty text: question"):
        dataset.question(8)
    assert dataset.source(8)["line"] == 5
    assert [q.group for q in questions(make("imagenetvc", tmp_path, subsets=["shape"]))] == [
        "shape"
    ]


def test_demonstrations_precede_prompts_but_not_images(tmp_path):
    write_imagenetvc(tmp_path)
    (tmp_path / "dev").mkdir()
    lines = "category,question,answer\r\nchow,What color is a chow?,brown\n"
    (tmp_path / "dev" / "color.csv").write_text(lines + "milk,And milk?,white\n")
    dataset = make("imagenetvc", tmp_path, subsets=["color"], use_icl=True)
    asked = dataset.question(0)
    assert asked.prompts[4] == (
        "Question: What color is a chow? The answer is brown. Question: And milk? The answer is "
        "white. Question: What color is a tench? The answer is"
    )
    assert asked.image_text == "What color is a tench?"
    with pytest.raises(DataError, match=r"dev/shape.csv: no such file; use_icl needs"):
        make("imagenetvc", tmp_path, subsets=["shape"], use_icl=True)


def test_objects_colours_and_shapes(tmp_path):
    memory = "Index,Descriptor,Item,Shape\r\n1,a,sunflower,yellow\r\n3,,ash,grey\r\n"
    (tmp_path / "memory_color_data.csv").write_text(memory, newline="")
    (tmp_path / "color-concrete-objects.csv").write_text("object,color\nbanana,yellow\nash,grey\n")
    (tmp_path / "shape.csv").write_text("Index,Descriptor,Item,Shape\r\n1,,coin,round\r\n")
    write_lines(tmp_path / "color.jsonl", [{"sub": "clock", "obj": "white", "alt": "silver"}])
    sunflower, ash = questions(make("memory_color", tmp_path))
    assert len(sunflower.prompts) == 9
    assert sunflower.prompts[0] == "Q: What is the color of a sunflower? A: It is"
    assert ash.prompts[8] == "ash usually has the color of"
    assert ash.options == ("yellow", "grey")
    assert questions(make("memory_color", tmp_path, unify_grey=True))[1].gold == "gray"
    banana = make("color_terms", tmp_path).question(0)
    assert (banana.prompts[4], banana.gold) == ("The color of banana is", "yellow")
    coin = make("object_shape", tmp_path).question(0)
    assert (coin.prompts[5], coin.gold) == ("The usual shape of coin is", "round")
    assert make("vicomte_color", tmp_path).question(0).gold == "white"


def test_sizes_are_also_asked_the_other_way_round(tmp_path):
    lines = "Descriptor1,Item1,Descriptor2,Item2,Label\nan,airplane,an,apple,yes\n"
    (tmp_path / "size.csv").write_text(lines + "a,cat,a,dog,no\n")
    dataset = make("relative_size", tmp_path)
    with pytest.raises(RecordError, match="Label is 'no'"):
        dataset.question(0)
    plain, swapped = dataset.question(1), dataset.question(2)
    assert (plain.prompts[0], plain.gold) == ("Is an airplane bigger than an apple?", "yes")
    assert swapped.prompts[5] == "an apple is taller than an airplane, is it true?"
    assert (swapped.gold, swapped.group) == ("no", "relative_size_swapped")
    assert plain.image_text == swapped.image_text
    other = tmp_path / "other"
    other.mkdir()
    (other / "sizePairsFull.txt").write_text("an aeroplane an apple\n")
    assert make("relative_size", other).question(0).prompts[0].startswith("Is an aeroplane bigger")
    write_lines(other / "larger.jsonl", [{"sub": "door", "obj": "lip", "alt": "earth"}])
    write_lines(other / "smaller.jsonl", [{"sub": "horse", "obj": "tank", "alt": "pot"}])
    sizes = questions(make("vicomte_size", other))
    assert sizes[0].prompts[0] == "Is door bigger than lip?"
    assert sizes[2].prompts[0] == "Is tank bigger than horse?"


PIQA = {"goal": "Warm soup.", "sol1": "Use a flask.", "sol2": "Use a plate."}
SIQA = {"context": "Kai ate.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z"}
HELLASWAG = {"ind": 7, "ctx": "A man cooks. He", "endings": ["eats.", "flies.", "is.", "on."]}
WINO = {"qID": "w1", "sentence": "The _ is big.", "option1": "cat", "option2": "dog"}
CHOICES = {"text": ["red", "blue"], "label": ["A", "B"]}
LISTED = [{"text": "red", "label": "1"}, {"text": "blue", "label": "2"}]

CASES = [
    ("piqa", "validation-00000.parquet", {**PIQA, "label": 1}, 1, "Warm soup. Use a plate."),
    ("siqa", "validation.jsonl", {**SIQA, "label": "2"}, 1, "Kai ate. Why? y"),
    ("hellaswag", "hellaswag_val.jsonl", {**HELLASWAG, "label": 1}, 1, "A man cooks. He flies."),
    ("hellaswag", "validation.parquet", {**HELLASWAG, "label": "3"}, 3, "A man cooks. He on."),
    ("winogrande", "dev.jsonl", {**WINO, "answer": "2"}, 1, "The dog is big."),
    (
        "arc_easy",
        "ARC-Easy/ARC-Easy-Test.jsonl",
        {"id": "q", "question": {"stem": "Sky?", "choices": LISTED}, "answerKey": "2"},
        1,
        "Sky? blue",
    ),
    (
        "arc_challenge",
        "ARC-Challenge/test-00000-of-00001.parquet",
        {"id": "q", "question": "Sky?", "choices": CHOICES, "answerKey": "B"},
        1,
        "Sky? blue",
    ),
    (
        "obqa",
        "Data/Main/test.jsonl",
        {"id": "q", "question": {"stem": "Sky", "choices": LISTED}, "answerKey": "1"},
        0,
        "Sky red",
    ),
    (
        "obqa",
        "main/test-00000-of-00001.parquet",
        {"id": "q", "question_stem": "Sky", "choices": CHOICES, "answerKey": "A"},
        0,
        "Sky red",
    ),
    (
        "cqa",
        "dev_rand_split.jsonl",
        {
            "id": "q",
            "question": {"stem": "Sky?", "question_concept": "sky", "choices": LISTED},
            "answerKey": "A",
        },
        0,
        "Sky? red",
    ),
    (
        "cqa",
        "data/validation.parquet",
        {"id": "q", "question": "Sky?", "choices": CHOICES, "answerKey": "B"},
        1,
        "Sky? blue",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "record", "gold", "text"), CASES)
def test_options_follow_their_context(name, file, record, gold, text, tmp_path):
    bad = {k: v for k, v in record.items() if k not in ("label", "answer", "answerKey")}
    if file.endswith("parquet"):
        write_parquet(tmp_path / file, [record])
        count = 1
    else:
        write_lines(tmp_path / file, [record, bad])
        count = 2
    dataset = make(name, tmp_path)
    assert len(dataset) == count
    found = dataset.question(0)
    assert (found.gold, found.prompts[found.gold]) == (gold, text)
    if count == 2:
        with pytest.raises(RecordError, match="wrong label"):
            dataset.question(1)


def test_labels_lie_beside_the_lines_as_published(tmp_path):
    write_lines(tmp_path / "valid.jsonl", [PIQA, PIQA])
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    write_lines(tmp_path / "dev.jsonl", [SIQA])
    (tmp_path / "dev-labels.lst").write_text("3\n")
    assert [q.gold for q in questions(make("piqa", tmp_path))] == [1, 0]
    assert [q.gold for q in questions(make("siqa", tmp_path))] == [2]
    (tmp_path / "valid-labels.lst").write_text("1\n")
    with pytest.raises(DataError, match="1 labels for 2 records"):
        make("piqa", tmp_path)


def test_winogrande_reads_what_follows_the_blank(tmp_path):
    write_lines(tmp_path / "dev.jsonl", [{**WINO, "answer": "1"}])
    question = make("winogrande", tmp_path).question(0)
    assert [t[s:] for t, s in zip(question.prompts, question.starts, strict=True)] == [
        " is big."
    ] * 2
    assert question.image_text == "The cat or dog is big."


def test_arc_is_pooled_from_both_files(tmp_path):
    record = {"question": "Sky?", "choices": CHOICES, "answerKey": "A"}
    for name in ("Easy", "Challenge"):
        write_lines(tmp_path / f"ARC-{name}-Test.jsonl", [{**record, "id": name}])
    groups = [(q.group, q.question_id) for q in questions(make("arc", tmp_path))]
    assert groups == [("arc_easy", "Easy"), ("arc_challenge", "Challenge")]


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


def test_files_may_be_named_and_bad_ones_are_told(tmp_path):
    write_lines(tmp_path / "mine.jsonl", [{**PIQA, "label": 0}])
    with open(tmp_path / "mine.jsonl", "a") as file:
        file.write("{broken\n")
    dataset = make("piqa", tmp_path, storage=["mine.jsonl"])
    assert dataset.question(0).gold == 0
    with pytest.raises(RecordError, match="malformed line"):
        dataset.question(1)
    assert dataset.source(1) == {"file": str(tmp_path / "mine.jsonl"), "line": 2}
    with pytest.raises(DataError, match="no file named dev"):
        make("boolq", tmp_path)
    with pytest.raises(ConfigError, match="2 files for 1 groups"):
        make("piqa", tmp_path, storage=["mine.jsonl", "mine.jsonl"])


def test_configs_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'pica'; did you mean 'piqa'"):
        make("pica", tmp_path)
    with pytest.raises(ValueError, match="subsets: 'colour'; did you mean 'color'"):
        make("imagenetvc", tmp_path, subsets=["colour"])
    with pytest.raises(ValueError, match="data_dir: no such file or folder"):
        make("piqa", tmp_path / "absent")
    with pytest.raises(ValueError, match="only imagenetvc has demonstrations"):
        make("piqa", tmp_path, use_icl=True)
    build_info = BuildInfo(annotations={"test": SplitSource(storage=[])})
    with pytest.raises(ValueError, match="data_dir: missing; give the folder that holds color"):
        BenchmarkDataset(BenchmarkConfig(benchmark="imagenetvc", build_info=build_info), "test")


def test_the_first_questions_of_each_group(tmp_path):
    write_imagenetvc(tmp_path)
    found = [q.group for q in questions(make("imagenetvc", tmp_path, max_questions=1))]
    assert found == ["color", "shape", "material", "component", "others"]


def test_questions_about_one_thing_share_a_unit(tmp_path):
    lines = "category,question,answer\na,Is it red?,yes\nb,Is it old?,yes\na,Is it red?,no\n"
    (tmp_path / "others.csv").write_text(lines)
    dataset = make("imagenetvc", tmp_path, subsets=["others"])
    keys = [dataset.row(n).image_key for n in range(3)]
    assert keys[0] == keys[2] != keys[1]
    assert dataset.row(0).all_texts == dataset.question(0).prompts
    before = dataset.fingerprint()
    (tmp_path / "others.csv").write_text(lines.replace("old", "new"))
    assert make("imagenetvc", tmp_path, subsets=["others"]).fingerprint() != before


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
