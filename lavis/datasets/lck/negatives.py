"""Negative records made from a corpus, to train a critic without human labels.

A corpus is read twice: once to collect its statements (`Corpus`), once to make negatives of each
record. Memory is a few hundred bytes a record. The output depends only on seed, corpus and record.
No negative is a record of its image, nor has the question and answer of another one; it may still
be true of the image without being recorded, and more often so if hard than if easy.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lavis.common.errors import RecordError
from lavis.common.storage.atomic import AtomicFile
from lavis.common.text import fold, letters_only
from lavis.datasets.files.json_values import json_line
from lavis.datasets.files.records import RecordStore
from lavis.datasets.lck.tokens import PARTS, Tokens, mentioned, read_region_ids, read_tokens

Record = dict[str, Any]
Difficulty = Literal["easy", "hard"]
KINDS = ("region_swap", "attribute_swap", "answer_swap", "rationale_swap")
TRIES = 8  # draws before a kind of negative is given up for a record

# A word is swapped for another of its list: any (easy) or a neighbour (hard).
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(
        "red orange yellow green blue purple pink white grey gray black brown beige tan".split()
    ),
    "size": tuple("tiny small little short big large tall huge".split()),
    "number": tuple("one two three four five six seven eight nine ten".split()),
    "side": ("left", "right"),
    "height": ("top", "above", "below", "bottom"),
    "age": tuple("baby young middle-aged old elderly".split()),
    "state": ("open", "closed", "full", "empty", "wet", "dry", "on", "off"),
    "person": tuple("man woman boy girl".split()),
    "mood": tuple("happy excited calm bored sad angry scared".split()),
    "weather": tuple("sunny cloudy rainy snowy".split()),
}
_LIST_OF = {word: (name, place) for name, ws in ATTRIBUTES.items() for place, word in enumerate(ws)}
_LIKE = {("grey", "gray"), ("gray", "grey"), ("small", "little"), ("little", "small")}


def normal(tokens: Sequence[Any]) -> str:
    """Return tokens as one text, normalised in case, spaces and punctuation."""
    words = [
        f"[{','.join(map(str, t))}]" if isinstance(t, list) else letters_only(str(t), keep="-' ")
        for t in tokens
    ]
    return " ".join(fold(" ".join(words)).split())


def question_type(question: Sequence[Any]) -> str:
    """Return a question's first two words: questions of a type exchange answers."""
    words = [str(t).lower() for t in question if not isinstance(t, list)]
    return " ".join(words[:2])


@dataclass
class Corpus:
    """A corpus' statements, as far as negatives need them.

    Attributes:
        hashes: of image, question and answer, and of image, question, answer, rationale.
        rows: row numbers of all records.
        by_type: the same by question type. by_scene: by image and question type.
    """

    hashes: set[int] = field(default_factory=set)
    rows: list[int] = field(default_factory=list)
    by_type: dict[str, list[int]] = field(default_factory=dict)
    by_scene: dict[int, list[int]] = field(default_factory=dict)

    def note(self, row: int, record: Mapping[str, Any]) -> None:
        """Add one record; raises `RecordError` where it is no question-answer-rationale record."""
        parts = {part: read_tokens(record, part) for part in PARTS}
        image = _image(record)
        self.hashes |= {_pair(image, parts), _whole(image, parts)}
        self.rows.append(row)
        kind = question_type(parts["question"])
        self.by_type.setdefault(kind, []).append(row)
        self.by_scene.setdefault(_hash(image, kind), []).append(row)

    def has_record(self, image: str, parts: Mapping[str, Tokens]) -> bool:
        """Return whether the image has this very record."""
        return _whole(image, parts) in self.hashes

    def has_pair(self, image: str, parts: Mapping[str, Tokens]) -> bool:
        """Return whether the image has a record with this question and answer."""
        return _pair(image, parts) in self.hashes


def _image(record: Mapping[str, Any]) -> str:
    image = record.get("image")
    if not isinstance(image, str) or not image:
        raise RecordError("missing field: image")
    return image


def _hash(*texts: str) -> int:
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")


def _pair(image: str, parts: Mapping[str, Tokens]) -> int:
    return _hash(image, normal(parts["question"]), normal(parts["answer"]))


def _whole(image: str, parts: Mapping[str, Tokens]) -> int:
    return _hash(image, *(normal(parts[part]) for part in PARTS))


class NegativeMaker:
    """Makes negatives of the records of one corpus.

    Args:
        corpus: with all of its records noted.
        read: row number -> record.
        kinds: some of `KINDS`.
        difficulties: `easy` draws from anywhere, `hard` from what is closest: the same image, the
            same type of question, a neighbouring word.
        seed: with the record's image and texts it determines every choice.
    """

    def __init__(
        self,
        corpus: Corpus,
        read: Callable[[int], Record],
        *,
        kinds: Sequence[str] = KINDS,
        difficulties: Sequence[Difficulty] = ("easy", "hard"),
        seed: int = 0,
    ) -> None:
        self.corpus, self.read = corpus, read
        self.kinds, self.difficulties, self.seed = list(kinds), list(difficulties), seed

    def make(self, record: Mapping[str, Any], count: int) -> Iterator[Record]:
        """Yield up to `count` different negatives, of different kinds before any kind twice.

        Each has `reject_label` 1, `qa_score`, `r_score`, `negative` (its kind) and `difficulty`.
        """
        parts = {part: read_tokens(record, part) for part in PARTS}
        image = _image(record)
        rng = random.Random(f"{self.seed}/{_whole(image, parts)}")
        recipes = [(kind, level) for kind in self.kinds for level in self.difficulties]
        rng.shuffle(recipes)
        made: set[int] = set()
        for number, (kind, level) in enumerate(spread(recipes)):
            if len(made) == count:
                return
            wrong = self._try(rng, record, parts, kind, level)
            if wrong is None or _whole(image, wrong) in made:
                continue
            made.add(_whole(image, wrong))
            yield self._label(record, wrong, kind, level, number)

    def _try(
        self,
        rng: random.Random,
        record: Mapping[str, Any],
        parts: dict[str, Tokens],
        kind: str,
        level: str,
    ) -> dict[str, Tokens] | None:
        image = _image(record)
        for _ in range(TRIES):
            wrong = getattr(self, f"_{kind}")(rng, record, parts, level)
            if wrong is None or any(not normal(wrong[part]) for part in PARTS):
                continue
            if _whole(image, wrong) == _whole(image, parts) or self.corpus.has_record(image, wrong):
                continue
            new_pair = _pair(image, wrong) != _pair(image, parts)
            if not (new_pair and self.corpus.has_pair(image, wrong)):
                return wrong
        return None

    def _region_swap(
        self, rng: random.Random, record: Mapping[str, Any], parts: dict[str, Tokens], level: str
    ) -> dict[str, Tokens] | None:
        """Name another region: one of the text's own (hard) or any of the image (easy)."""
        named = mentioned(token for part in PARTS for token in parts[part])
        if not named:
            return None
        pool = named if level == "hard" else read_region_ids(record, "region_all") or named
        one = rng.choice(named)
        others = [i for i in pool if i != one]
        if not others:
            return None
        two = rng.choice(others)
        turn = {one: two, two: one}
        swapped = {part: _rename(parts[part], turn) for part in ("answer", "rationale")}
        if swapped == {part: parts[part] for part in swapped}:  # only the question names them
            swapped = {"question": _rename(parts["question"], turn)}
        return {**parts, **swapped}

    def _attribute_swap(
        self, rng: random.Random, record: Mapping[str, Any], parts: dict[str, Tokens], level: str
    ) -> dict[str, Tokens] | None:
        """Swap a colour, size, number, side or state, the same in answer and rationale."""
        tokens = [t for part in PARTS[1:] for t in parts[part] if not isinstance(t, list)]
        known = {_bare(token) for token in tokens} & _LIST_OF.keys()
        if not known:
            return None
        old = rng.choice(sorted(known))
        name, place = _LIST_OF[old]
        words = ATTRIBUTES[name]
        near = [words[i] for i in (place - 1, place + 1) if 0 <= i < len(words)]
        choices = [w for w in (near if level == "hard" else words) if (old, w) not in _LIKE]
        choices = [word for word in choices if word != old]
        if not choices:
            return None
        new = rng.choice(choices)
        return parts | {part: [_replace(t, old, new) for t in parts[part]] for part in PARTS[1:]}

    def _answer_swap(
        self, rng: random.Random, record: Mapping[str, Any], parts: dict[str, Tokens], level: str
    ) -> dict[str, Tokens] | None:
        """Take another record's answer: to the same type of question (hard), to any (easy).

        A hard one is of the same image, about another region, where there is one.
        """
        rows = self.corpus.rows
        if level == "hard":
            kind = question_type(parts["question"])
            here = self.corpus.by_scene.get(_hash(_image(record), kind), [])
            alike = self.corpus.by_type.get(kind, [])
            rows = here if len(here) > 1 and rng.random() < 0.7 else alike
        other = self._other(rng, rows)
        if other is None:
            return None
        answer = read_tokens(other, "answer")
        if _image(other) != _image(record):
            answer = self._fit(answer, record)
        return None if normal(answer) == normal(parts["answer"]) else {**parts, "answer": answer}

    def _rationale_swap(
        self, rng: random.Random, record: Mapping[str, Any], parts: dict[str, Tokens], level: str
    ) -> dict[str, Tokens] | None:
        """Take another rationale: of the same type of question (hard), of any (easy)."""
        kind = question_type(parts["question"])
        rows = self.corpus.by_type.get(kind, []) if level == "hard" else self.corpus.rows
        other = self._other(rng, rows, but=_image(record))
        rationale = other and self._fit(read_tokens(other, "rationale"), record)
        if not rationale or normal(rationale) == normal(parts["rationale"]):
            return None
        return {**parts, "rationale": rationale}

    def _other(
        self, rng: random.Random, rows: Sequence[int], but: str | None = None
    ) -> Record | None:
        if not rows:
            return None
        other = self.read(rng.choice(rows))
        return None if but is not None and other.get("image") == but else other

    def _fit(self, tokens: Tokens, record: Mapping[str, Any]) -> Tokens:
        """Return another image's tokens with its region ids replaced by this record's."""
        ids = read_region_ids(record, "region") or read_region_ids(record, "region_all")
        if not ids:
            return [t for t in tokens if not isinstance(t, list)]
        turn = {number: ids[place % len(ids)] for place, number in enumerate(mentioned(tokens))}
        return _rename(tokens, turn)

    def _label(
        self,
        record: Mapping[str, Any],
        wrong: dict[str, Tokens],
        kind: str,
        level: str,
        number: int,
    ) -> Record:
        named = mentioned(token for part in PARTS for token in wrong[part])
        return {
            **_unlabelled(record),
            **wrong,
            "region": list(dict.fromkeys([*read_region_ids(record, "region"), *named])),
            "index": f"{record.get('index', '')}-{kind}-{level}-{number}",
            "reject_label": 1,
            "qa_score": float(_pair(_image(record), wrong) == _pair(_image(record), record)),
            "r_score": 0.0,
            "negative": kind,
            "difficulty": level,
        }


def spread(recipes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Order recipes so that every kind comes once before any comes again."""
    seen: dict[str, int] = {}
    ranked = []
    for recipe in recipes:
        seen[recipe[0]] = seen.get(recipe[0], 0) + 1
        ranked.append((seen[recipe[0]], recipe))
    return [recipe for _, recipe in sorted(ranked, key=lambda pair: pair[0])]


def positive(record: Mapping[str, Any]) -> Record:
    """Return a record labelled as right."""
    right = {"reject_label": 0, "qa_score": 1.0, "r_score": 1.0, "negative": ""}
    return {**_unlabelled(record), **right}


def _unlabelled(record: Mapping[str, Any]) -> Record:
    return {k: v for k, v in record.items() if k not in ("prediction", "label", "score")}


def note_all(count: int, read: Callable[[int], Record]) -> Corpus:
    """Return the statements of `count` records; unusable records are skipped."""
    corpus = Corpus()
    for row in range(count):
        with contextlib.suppress(RecordError):
            corpus.note(row, read(row))
    return corpus


def write_negatives(store: RecordStore, path: Path, count: int, **options: Any) -> Counter[str]:
    """Write usable records, each labelled as right, with up to `count` negatives behind it.

    Args:
        store: the corpus.
        options: of `NegativeMaker`.

    Returns:
        Numbers of right records, of negatives by kind, and of unusable records by reason.
    """
    counts: Counter[str] = Counter()
    maker = NegativeMaker(note_all(len(store), store.read), store.read, **options)
    with AtomicFile(path) as file:
        for row in range(len(store)):
            try:
                record = store.read(row)
                negatives = list(maker.make(record, count))
            except RecordError as error:
                counts[f"not used: {error.reason.split(':')[0]}"] += 1
                continue
            counts["right"] += 1
            counts.update(f"{each['negative']}, {each['difficulty']}" for each in negatives)
            for each in (positive(record), *negatives):
                file.write(json_line(each) + b"\n")
    return counts


def _rename(tokens: Sequence[Any], turn: Mapping[int, int]) -> Tokens:
    return [[turn.get(i, i) for i in t] if isinstance(t, list) else t for t in tokens]


def _bare(token: Any) -> str:
    return str(token).lower().rstrip(".,;:!?")


def _replace(token: Any, old: str, new: str) -> Any:
    """Return a token with its word exchanged; what follows the word stays."""
    if isinstance(token, list) or _bare(token) != old:
        return token
    text = str(token)
    return (new.capitalize() if text[:1].isupper() else new) + text[len(old) :]
