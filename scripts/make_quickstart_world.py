"""Make the quickstart's world: pictogram scenes, and what a scripted, erring teacher says of them.

    python scripts/make_quickstart_world.py output/quickstart/world --seed 0

writes `images/`, `train.jsonl`, `val.jsonl` and `test.jsonl` (LCK records, one question-answer-
rationale per line), and `control.jsonl`, the test records with the images of other scenes: what
can be told from the texts alone. The same seed gives the same bytes. Pictograms: OpenMoji.
`--statements` writes true and false statements with the boxes of their words instead, the data
that the shipped weights were trained on before any critic saw a teacher.

Naming scenes show any object and are asked for objects and kinds. Looking scenes are asked for
colours and places; they show only objects of their own split, so no object that is asked for its
colour or place in validation or test is seen in a training scene that asks for either.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command
from lavis.common.storage.atomic import write_text
from lavis.generators import openmoji

Tokens = list[str | list[int]]
SIDE = 128  # pixels; nine cells of 42 pixels hold at most one pictogram each
CELL = 42
SIZES = (40, 43, 46)
GROUNDS = ((255, 255, 255), (250, 244, 232), (238, 244, 250))
PAINTED = 0.6  # share of the things painted in a random colour
TOLD = 0.55  # least share of the dominant colour for a thing to have that colour
CLEAR = 0.65  # least share for the teacher to be asked for it
COLOURS_A_PLACE = 2  # questions for colours to one for a place: colours are harder to learn
WRONG = 0.42  # share of wrong answers; repeated correct ones are left out, which makes it 0.45
APART = 20  # least distance in pixels between centres for left/right
COLOURS = ("red", "yellow", "green", "blue", "purple", "brown", "grey")  # no near neighbours


@dataclass(frozen=True, slots=True)
class Thing:
    """One pictogram of a scene; `box` is tight; no `colour` where none has the share `TOLD`."""

    word: str
    kind: str
    colour: str | None
    share: float  # of the dominant colour in what is painted
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """An image's facts: `drawn` are the highlighted things in the order of their numbers, and a
    colour is asked for where its share is at least `clear`."""

    name: str
    looking: bool
    things: list[Thing]
    drawn: list[int]
    clear: float = CLEAR


@dataclass(frozen=True, slots=True)
class Qar:
    """A teacher's record before it is written; `error` is "" where it is correct."""

    kind: str
    error: str
    about: int  # the thing asked for
    question: Tokens
    answer: Tokens
    rationale: Tokens
    qa_score: float


@cache
def words_of(split: str) -> tuple[str, ...]:
    """Objects whose colour and place are asked for in this split; disjoint between splits."""
    chosen = {"train": range(6), "val": range(6, 7), "test": range(7, 9)}[split]
    kinds = [entry.split() for entry in openmoji.KINDS.values()]
    return tuple(words[i].partition("=")[0] for words in kinds for i in chosen)


@cache
def drawing(word: str, paint: str | None) -> tuple[Image.Image, str | None, float]:
    """The pictogram at twice the largest size, its colour as measured and that colour's share."""
    image = openmoji.render(word, 2 * SIZES[-1], colour=paint)
    colour, share = openmoji.dominant_colour(image.resize((SIZES[-1], SIZES[-1])))
    told = share >= TOLD and colour in COLOURS and paint in (None, colour)
    return image, colour if told else None, share


@cache
def stamp(word: str, size: int, paint: str | None) -> Image.Image:
    """The pictogram cut to its painted pixels."""
    image = drawing(word, paint)[0].resize((size, size), Image.Resampling.LANCZOS)
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)).getbbox()
    return image.crop(box)


def make_scene(
    name: str, rng: random.Random, *, looking: bool, words: tuple[str, ...]
) -> tuple[Scene, Image.Image]:
    """Place 2-5 different objects in different cells; half of them in another colour."""
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(GROUNDS))
    count = min(rng.randint(2, 5), len(words))
    things: list[Thing] = []
    cells = rng.sample(range(9), count)
    for word, cell in zip(rng.sample(words, count), cells, strict=True):
        paint = rng.choice(COLOURS) if rng.random() < PAINTED else None
        cut = stamp(word, rng.choice(SIZES), paint)
        left = cell % 3 * CELL + 1 + rng.randint(0, CELL - cut.width)
        top = cell // 3 * CELL + 1 + rng.randint(0, CELL - cut.height)
        image.paste(cut, (left, top), cut)
        box = (left, top, left + cut.width - 1, top + cut.height - 1)
        _, colour, share = drawing(word, paint)
        things.append(Thing(word, openmoji.catalogue()[word].kind, colour, share, box))
    drawn = rng.sample(range(count), min(count, rng.randint(2, 3)))
    return Scene(name, looking, things, drawn), image


def with_article(word: str) -> list[str]:
    """`["an", "onion"]`, `["a", "car"]`, `["some", "jeans"]`."""
    if word in ("jeans", "socks", "gloves", "grapes", "cherries", "scissors", "maracas"):
        return ["some", word]
    return ["an" if word[0] in "aeiou" else "a", word]


def ask_object(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar:
    """What is it? A wrong teacher names another thing of the scene or an object not there."""
    said, error, score = scene.things[about].word, "", 1.0
    if wrong:
        there = [t.word for i, t in enumerate(scene.things) if i != about]
        said, error, score = rng.choice(there), "wrong_region", 0.0
        if rng.random() < 0.5:
            said = rng.choice(sorted(set(openmoji.catalogue()) - {t.word for t in scene.things}))
            error = "wrong_object"
            score = 0.5 * (openmoji.catalogue()[said].kind == scene.things[about].kind)
    words = with_article(said)
    rationale: Tokens = [[about], "has", "the", "shape", "of", *words[:-1], f"{said}."]
    return Qar("object", error, about, ["What", "is", [about], "?"], _end(words), rationale, score)


def ask_kind(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar:
    """What kind of thing is it? Wrong: the kind of another thing, there or not."""
    true = scene.things[about].kind
    said, error = true, ""
    if wrong:
        there = [t.kind for t in scene.things if t.kind != true]
        said, error = rng.choice([kind for kind in openmoji.KINDS if kind != true]), "wrong_object"
        if there and rng.random() < 0.5:
            said, error = rng.choice(there), "wrong_region"
    question: Tokens = ["What", "kind", "of", "thing", "is", [about], "?"]
    rationale: Tokens = [[about], "belongs", "to", "the", said, "kind."]
    answer = _end(["clothing"] if said == "clothing" else with_article(said))
    return Qar("kind", error, about, question, answer, rationale, float(not wrong))


def any_colour(rng: random.Random, *, but: str) -> str:
    """A colour drawn as scenes draw them, so that wrong answers are no rarer than right ones."""
    colour = None
    while colour is None or colour == but:
        word = rng.choice(sorted(openmoji.catalogue()))
        colour = drawing(word, rng.choice(COLOURS) if rng.random() < PAINTED else None)[1]
    return colour


def ask_colour(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar | None:
    """What colour is it? None where the thing has no clear colour."""
    true = scene.things[about].colour
    if true is None or scene.things[about].share < scene.clear:
        return None
    said, error = true, ""
    if wrong:
        there = [t.colour for t in scene.things if t.colour not in (None, true)]
        said, error = any_colour(rng, but=true), "wrong_colour"
        if there and rng.random() < 0.5:
            said, error = str(rng.choice(there)), "wrong_region"
    question: Tokens = ["What", "colour", "is", [about], "?"]
    rationale: Tokens = ["most", "of", [about], "is", "painted", f"{said}."]
    return Qar("colour", error, about, question, [f"{said}."], rationale, float(not wrong))


def ask_relation(rng: random.Random, scene: Scene, about: int, wrong: bool) -> Qar | None:
    """Which side of another highlighted thing is it on? None where no other one is clear."""
    here = scene.things[about].centre[0]
    others = [i for i in scene.drawn if abs(scene.things[i].centre[0] - here) >= APART]
    if not others:
        return None
    other = rng.choice(others)
    left = (here < scene.things[other].centre[0]) != wrong
    side = "left" if left else "right"
    answer: Tokens = [side, "of", [other], "."]
    rationale: Tokens = [[about], "is", "nearer", "to", "the", side, "edge", "than", [other], "."]
    question: Tokens = ["Where", "is", [about], "?"]
    error = "wrong_relation" if wrong else ""
    return Qar("relation", error, about, question, answer, rationale, float(not wrong))


def _end(words: list[str]) -> Tokens:
    return [*words[:-1], f"{words[-1]}."]


ASK = {"object": ask_object, "kind": ask_kind, "colour": ask_colour, "relation": ask_relation}


def ask(
    rng: random.Random, scene: Scene, count: int, *, colours: int = COLOURS_A_PLACE
) -> Iterator[Qar]:
    """Up to `count` different records on a scene's highlighted things, kind after kind in turn."""
    kinds = ("colour", "relation", "colour")[: colours + 1] if scene.looking else ("object", "kind")
    seen: set[str] = set()
    for number in range(3 * count):
        about, wrong = rng.choice(scene.drawn), rng.random() < WRONG
        qar = ASK[kinds[number % len(kinds)]](rng, scene, about, wrong)
        key = qar and json.dumps([qar.question, qar.answer])
        if qar is not None and key not in seen:
            seen.add(str(key))
            yield qar
        if len(seen) == count:
            return


def word_boxes(scene: Scene) -> dict[str, list[list[float]]]:
    """Word -> boxes as shares of the image; empty for what is not there, no word where unsure."""
    words = [*openmoji.catalogue(), *openmoji.KINDS, *map(str, range(3))]
    boxes: dict[str, list[list[float]]] = {word: [] for word in words}
    if scene.looking:  # colours are told of objects that may be asked for them, and of no others
        boxes |= {colour: [] for colour in COLOURS}
    for i, thing in enumerate(scene.things):
        x1, y1, x2, y2 = thing.box
        share = [round(edge / SIDE, 4) for edge in (x1, y1, x2 + 1, y2 + 1)]
        named = [thing.word, thing.kind]
        named += [str(scene.drawn.index(i))] if i in scene.drawn else []
        named += [thing.colour] if scene.looking and thing.colour else []
        for word in named:
            boxes[word].append(share)
    return boxes


def state(rng: random.Random, qar: Qar) -> Tokens:
    """Say a record's claim in one short statement."""
    manner: Tokens = ["is"]
    if qar.kind == "kind":
        manner = ["is", "a", "kind", "of"]
        return [[qar.about], *manner, qar.answer[-1]]
    if qar.kind == "object" and rng.random() < 0.5:
        manner = ["has", "the", "shape", "of"]
    if qar.kind == "colour" and rng.random() < 0.5:
        manner = ["is", "painted"]
    return [[qar.about], *manner, *qar.answer]


def state_place(rng: random.Random, scene: Scene) -> tuple[Tokens, bool] | None:
    """Say on which side of the image a thing is, and whether that is true."""
    about, true = rng.choice(scene.drawn), rng.random() < 0.5
    x = scene.things[about].centre[0]
    if abs(x - SIDE / 2) < APART / 2:
        return None
    side = "left" if (x < SIDE / 2) == true else "right"
    return [[about], "is", "on", "the", side, "side."], true


def statement(
    scene: Scene, split: str, tokens: Tokens, number: int, *, kind: str, true: bool
) -> dict[str, Any]:
    """One line of a `--statements` file."""
    return {
        "image": f"images/{scene.name}.png",
        "source": f"openmoji_statement_{kind}",
        "split": split,
        "index": f"openmoji-{scene.name}-s{number}",
        "region": scene.drawn,
        "region_all": scene.drawn,
        "references": references(scene),
        "full_text_input": tokens,
        "reject_label": int(not true),
        "kind": kind,
        "word_boxes": word_boxes(scene),
    }


def state_scene(rng: random.Random, scene: Scene, split: str, count: int) -> Iterator[dict]:
    """Statements of a scene: the claims of a teacher without a manner, and places."""
    number = 0
    for qar in ask(rng, scene, count, colours=1):
        true = not qar.error
        yield statement(scene, split, state(rng, qar), number, kind=qar.kind, true=true)
        number += 1
    place = state_place(rng, scene) if scene.looking else None
    if place is not None:
        yield statement(scene, split, place[0], number, kind="place", true=place[1])


def references(scene: Scene) -> list[dict[str, Any]]:
    """The scene's things as LCK regions, named by their number in the scene."""
    return [
        {
            "name": str(i),
            "boxes": [list(thing.box)],
            "segms": None,
            "obj_guess": thing.word,
            "tag": thing.kind,
            "colour": thing.colour,
        }
        for i, thing in enumerate(scene.things)
    ]


def record(scene: Scene, split: str, qar: Qar, number: int) -> dict[str, Any]:
    """One line of a world file: LCK fields, labels, and the fields the report slices by."""
    return {
        "image": f"images/{scene.name}.png",
        "source": f"openmoji_{qar.kind}",
        "split": split,
        "index": f"openmoji-{scene.name}-{number}",
        "region": scene.drawn,
        "region_all": scene.drawn,
        "references": references(scene),
        "question": qar.question,
        "answer": qar.answer,
        "rationale": qar.rationale,
        "reject_label": int(bool(qar.error)),
        "qa_score": qar.qa_score,
        "r_score": float(not qar.error),
        "kind": qar.kind,
        "error": qar.error,
        "object": scene.things[qar.about].word,
        "seen_colour": scene.things[qar.about].word in words_of("train"),
    }


def make_one(
    number: int, *, out: Path, seed: int, split: str, per_scene: int, statements: bool
) -> list[str]:
    """Draw scene `number` of a split and return its records as JSON lines."""
    rng = random.Random(f"{seed}/{split}/{number}")
    looking = number % 2 == 0
    words = words_of(split) if looking else tuple(openmoji.catalogue())
    scene, image = make_scene(f"{split}_{number:05d}", rng, looking=looking, words=words)
    image.save(out / "images" / f"{scene.name}.png", compress_level=1)
    if statements:
        scene = replace(scene, clear=TOLD)
        return [json.dumps(line) for line in state_scene(rng, scene, split, per_scene)]
    qars = ask(rng, scene, per_scene)
    return [json.dumps(record(scene, split, qar, i)) for i, qar in enumerate(qars)]


def make_split(
    pool: ProcessPoolExecutor, out: Path, split: str, *, scenes: int, **options: Any
) -> None:
    """Write the scenes and the JSONL file of one split."""
    make = partial(make_one, out=out, split=split, **options)
    lines = list(chain.from_iterable(pool.map(make, range(scenes), chunksize=50)))
    path = out / f"{split}.jsonl"
    write_text(path, "\n".join(lines) + "\n")
    wrong = sum(json.loads(line)["reject_label"] for line in lines)
    print(f"{path}: {scenes} scenes, {len(lines)} records, {wrong / max(1, len(lines)):.1%} wrong")


def exchange_images(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every scene's records the image and regions of another scene asked the same way."""
    scenes: dict[tuple[bool, int], dict[str, dict[str, Any]]] = {}
    for entry in records:
        group = (entry["kind"] in ("colour", "relation"), len(entry["region"]))
        scenes.setdefault(group, {}).setdefault(entry["image"], entry)
    other: dict[str, dict[str, Any]] = {}
    for group in scenes.values():
        names = list(group)
        other |= {name: group[names[i - 1]] for i, name in enumerate(names)}
    swapped = ("image", "region", "region_all", "references")
    exchanged = []
    for entry in records:
        theirs = other[entry["image"]]
        numbers = dict(zip(entry["region"], theirs["region"], strict=True))
        texts = {
            key: [[numbers[i] for i in t] if isinstance(t, list) else t for t in entry[key]]
            for key in ("question", "answer", "rationale")
        }
        index = f"{entry['index']}-control"
        exchanged.append(
            {**entry, **{key: theirs[key] for key in swapped}, **texts, "index": index}
        )
    return exchanged


@command
def main() -> None:
    """Make the world that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=1400, help="training scenes")
    parser.add_argument("--val", type=int, default=200, help="validation scenes")
    parser.add_argument("--test", type=int, default=600, help="held-out scenes")
    parser.add_argument("--per-scene", type=int, default=4, help="records per scene")
    parser.add_argument("--statements", action="store_true", help="for training the weights")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        for split in ("train", "val", "test"):
            make_split(
                pool,
                args.out,
                split,
                scenes=getattr(args, split),
                seed=args.seed,
                per_scene=args.per_scene,
                statements=args.statements,
            )
    if not args.statements:
        lines = (args.out / "test.jsonl").read_text(encoding="utf-8").splitlines()
        control = [json.dumps(entry) for entry in exchange_images([*map(json.loads, lines)])]
        write_text(args.out / "control.jsonl", "\n".join(control) + "\n")
    print(openmoji.ATTRIBUTION)


if __name__ == "__main__":
    sys.exit(main())
