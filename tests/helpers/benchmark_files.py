"""Every benchmark as a small folder of files in the form its authors publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE = "category,question,answer\n"
MEMORY = (
    "Index,Descriptor,Item,Shape\r\n1,a,sunflower,yellow\r\n2,,banana,yellow\r\n3,,ash,grey\r\n"
)
SHAPES = "Index,Descriptor,Item,Shape\r\n1,,coin,round\r\n2,a,dice,square\r\n"
SIZES = "Descriptor1,Item1,Descriptor2,Item2,Label\nan,airplane,an,apple,yes\na,horse,a,cat,yes\n"
PIQA = [
    {"goal": f"Warm the soup of dog {n}.", "sol1": "A flask.", "sol2": "A plate."} for n in "ab"
]
SIQA = [{"context": "Kai ate a banana.", "question": "Why?", "answerA": "hungry", "answerB": "sad",
         "answerC": "it is red"}]  # fmt: skip
HELLASWAG = [{"ind": 7, "ctx": "A man cooks an apple. He", "label": 3,
              "endings": ["eats it.", "flies.", "is a cat.", "goes on."]}]  # fmt: skip
WINO = [{"qID": "w1", "sentence": "The _ is big.", "option1": "cat", "option2": "dog",
         "answer": "2"}]  # fmt: skip
LISTED = [{"text": "red", "label": "A"}, {"text": "bright blue", "label": "B"}]
STEM = {"stem": "What is an apple?", "choices": LISTED}
SKY = [{"id": "q", "question": STEM, "answerKey": "B"}]
BOOLQ = [
    {"question": "is it a dog", "answer": True, "passage": "A dog is old."},
    {"question": "is it a cat", "answer": False, "passage": "A dog is not a cat."},
]
VICOMTE = [{"sub": "banana", "obj": "yellow", "alt": "red"}, {"sub": "cat", "obj": "black",
           "alt": "blue"}]  # fmt: skip
SUBSETS = {
    "color": "tench,What color is a banana?,yellow\r\nfish,What color is a fish?,orange\r\n",
    "shape": "coin,What shape is an apple?,round\n",
    "material": "gown,What is it made of?,cotton\n",
    "component": "dog,Does a dog have fur?,yes\n",
    "others": "a,Is it big?,yes\nb,How many legs has a cat?,4\nc,Is a horse long or short?,short\n",
}


def _squad() -> dict[str, Any]:
    def entry(name: str, question: str, *answers: str) -> dict[str, Any]:
        given = [{"text": text, "answer_start": 0} for text in answers]
        return {"id": name, "question": question, "answers": given, "is_impossible": not answers}

    asked = [
        entry("s1", "What is a dog?", "an animal", "animal"),
        entry("s2", "Who sings?"),
        entry("s3", "Where is the cat?", "Rome"),
    ]
    paragraph = {"context": "A dog is an animal. The cat is in Rome.", "qas": asked}
    return {"version": "v2.0", "data": [{"title": "Dogs", "paragraphs": [paragraph]}]}


def _quac() -> dict[str, Any]:
    def entry(name: str, question: str, *answers: str) -> dict[str, Any]:
        given = [{"text": text, "answer_start": 0} for text in answers]
        return {"id": name, "question": question, "answers": given, "orig_answer": given[0]}

    turns = [
        entry("d1_q#0", "Who?", "Ada", "Ada Lovelace"),
        entry("d1_q#1", "Why?", "CANNOTANSWER", "CANNOTANSWER"),
        entry("d1_q#2", "When?", "1843", "in 1843"),
    ]
    paragraph = {"id": "d1", "context": "Ada wrote in 1843. CANNOTANSWER", "qas": turns}
    article = {"title": "Ada", "section_title": "Notes", "background": "Born in Rome."}
    return {"data": [{**article, "paragraphs": [paragraph]}]}


FILES: dict[str, dict[str, Any]] = {
    "imagenetvc": {f"{name}.csv": TABLE + rows for name, rows in SUBSETS.items()},
    "memory_color": {"memory_color_data.csv": MEMORY},
    "color_terms": {"color-concrete-objects.csv": "object,color\nbanana,yellow\ncat,grey\n"},
    "object_shape": {"shape.csv": SHAPES},
    "relative_size": {"size.csv": SIZES},
    "vicomte_color": {"color.jsonl": VICOMTE},
    "vicomte_shape": {"shape.jsonl": VICOMTE},
    "vicomte_size": {"larger.jsonl": VICOMTE, "smaller.jsonl": VICOMTE},
    "piqa": {"valid.jsonl": PIQA, "valid-labels.lst": "1\n0\n"},
    "siqa": {"dev.jsonl": SIQA, "dev-labels.lst": "3\n"},
    "hellaswag": {"hellaswag_val.jsonl": HELLASWAG},
    "winogrande": {"dev.jsonl": WINO},
    "arc_easy": {"ARC-Easy/ARC-Easy-Test.jsonl": SKY},
    "arc_challenge": {"ARC-Challenge/ARC-Challenge-Test.jsonl": SKY},
    "obqa": {"Data/Main/test.jsonl": SKY},
    "cqa": {"dev_rand_split.jsonl": SKY},
    "boolq": {"dev.jsonl": BOOLQ},
    "squad": {"dev-v2.0.json": _squad()},
    "quac": {"val_v0.2.json": _quac()},
}
FILES["arc"] = FILES["arc_easy"] | FILES["arc_challenge"]


def write_benchmark(name: str, folder: Path) -> Path:
    """Write the files of a benchmark and return their folder."""
    for file, content in FILES[name].items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        elif isinstance(content, dict):
            content = json.dumps(content)
        path.write_text(content, newline="")
    return folder
