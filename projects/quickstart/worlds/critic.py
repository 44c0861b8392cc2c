"""Make the quickstart's world: pictogram scenes, and what a scripted, erring teacher says of them.

    python -m projects.quickstart.worlds.critic output/quickstart/world --seed 0

writes `images/`, `train.jsonl`, `val.jsonl` and `test.jsonl` (LCK records, one question-answer-
rationale per line), and `control.jsonl`, the test records with the images of other scenes: what
can be told from the texts alone. The same seed gives the same bytes. Pictograms: OpenMoji.
`--statements` writes true and false statements with the boxes of their words instead, the data
that the shipped weights were trained on before any critic saw a teacher.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lavis.common.command import command
from lavis.common.storage.atomic import write_text
from projects.quickstart import openmoji
from projects.quickstart.worlds.claims import (
    Qar,
    Tokens,
    ask,
    state,
    state_place,
)
from projects.quickstart.worlds.scenes import (
    COLOURS,
    SIDE,
    TOLD,
    Scene,
    make_scene,
    words_of,
)


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
    for alike in scenes.values():
        names = list(alike)
        other |= {name: alike[names[i - 1]] for i, name in enumerate(names)}
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
