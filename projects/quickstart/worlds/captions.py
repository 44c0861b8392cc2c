"""Make the quickstart's second world: captions that state colours, questions about new objects.

    python -m projects.quickstart.worlds.captions output/quickstart/captions --seed 0

writes

- `train.jsonl` and `images/`: images of the training objects and a caption of each, "The color of
  the banana is yellow". One of four images shows the object as OpenMoji draws it, in the others
  its main colour is painted over with another one, which the caption states: what an object is
  called then says little about its colour, so that looking at the image pays.
- `train_blank.jsonl`: the same captions, all with one grey image, for the control.
- `val/color.csv`, `test/color.csv`: questions about other objects in ImageNetVC's format, for
  `benchmark: imagenetvc`. Their images are drawn by the generator `openmoji`, never painted.
- `blank/`: the grey image as the answer to every question, for the generator `folder`.

An object is in one split for every seed, with all that share a word with it; seeds change images
and paint. Its colour is the one that covers most of its pictogram's paint. Pictograms: OpenMoji.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lavis.common.command import command
from lavis.common.storage.atomic import write_text
from lavis.datasets.benchmarks.imagenetvc import CANDIDATES
from projects.quickstart import openmoji
from projects.quickstart.config import OpenmojiConfig
from projects.quickstart.generator import OpenmojiGenerator
from projects.quickstart.pictograms import named_pictograms, pictogram_names

SIDE = 128  # pixels
QUESTION = "What is the color of the {name}?"
CAPTIONS = ("The color of the {name} is {colour}", "What is the color of the {name}? {colour}")
IMAGES = 4  # of a training object, each with its turn of the captions
PAINTED_FROM = 1  # images before this one are as OpenMoji draws them
TOLD = 0.5  # least share of the paint that an object's colour covers
COVERED = 0.04  # least share of the image that is painted at all
LARGEST = 3  # objects that share words and may be held out together
HELD_OUT = {"test": 150, "val": 60}  # objects at most
ANSWERS = {"grey": "gray"}  # ImageNetVC's spelling
COLOURS = {
    c: ANSWERS.get(c, c) for c in openmoji.PALETTE if ANSWERS.get(c, c) in CANDIDATES["color"]
}
PAINTS = tuple(colour for colour in COLOURS if colour in openmoji.PAINTS)
LINKS = frozenset("with of and on in up without behind the a light box card".split())
# Names of these words are left out: colours, people and their parts, faces, marks, places.
NOT_NAMED = frozenset(
    """
    red orange yellow green blue purple pink brown grey gray white black
    person people man men woman women girl boy baby child children family adult kiss couple elf
    student teacher farmer singer astronaut pilot firefighter judge guard dancer detective ninja
    mage genie fairy vampire zombie mermaid merperson troll superhero santa claus alien monster
    goblin ogre ghost robot creature angel clown pirate hand hands fist finger fingers thumbs palm
    palms biceps ear eye eyes mouth tongue nose leg foot tooth lip head arm lungs brain fingerprint
    footprints bust busts silhouette index handshake salute smiling grinning kissing crying pouting
    weary face faces heart hearts circle square diamond triangle arrow arrows button mark sign
    symbol symbols suit keycap input loop dash exclamation gesture number numbers latin letters
    hundred points exchange dollar equals currency biohazard radioactive asterisk atom cross crossed
    trident medical wheelchair transgender recycling beginner crossing entry smoking littering
    pedestrians bicycles phones eighteen potable no ok new free cool id sos um am pm 1st 2nd 3rd
    aquarius aries cancer capricorn gemini leo libra ophiuchus pisces sagittarius scorpio taurus
    virgo bubble balloon balance muted speaker volume mode vibration low high bright dim battery
    bars slash off antenna circled cinema customs baggage claim luggage litter closet room restroom
    badge vs performing arts chart increasing decreasing thirty viewing ceremony
    dancing running walking biking swimming surfing rowing golfing kneeling standing wrestling
    skier snowboarder levitating hugging holding speaking racing evil world globe map meridians
    japan japanese post place worship hotel springs landslide cityscape sunrise sunset night dusk
    fleur fog foggy dashing collision sweat droplets wind anger sparkles dizzy splatter fight tears
    zzz
    """.split()
)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: its CLDR name, and its colour as the palette calls it."""

    name: str
    colour: str

    @property
    def answer(self) -> str:
        """The colour as captions and questions spell it."""
        return COLOURS[self.colour]


def words(name: str) -> list[str]:
    """Return the words of a name in lower case."""
    return re.findall(r"\w+", name.lower())


def own_colour(name: str) -> str | None:
    """Return the colour of a pictogram, white too; None where none covers most of the paint."""
    image = openmoji.render(name, 96)
    pixels = np.asarray(image, dtype=np.int32).reshape(-1, 4)
    is_painted = (pixels[:, 3] == 255) & (pixels[:, :3].sum(axis=1) >= 60)  # not the outline
    shares = openmoji.colour_shares(image)
    colour = next(iter(shares), None)
    if colour is None or shares[colour] < TOLD or is_painted.mean() < COVERED:
        return None
    return colour if colour in COLOURS else None


def find_things() -> list[Thing]:
    """Return the objects that a question can name and whose colour is clear, by name."""
    found = []
    for name in pictogram_names():
        spoken = words(name)
        if NOT_NAMED.intersection(spoken) or len(spoken) > 3:
            continue
        if [n for n, _ in named_pictograms(QUESTION.format(name=name))] != [name]:
            continue
        colour = own_colour(name)
        if colour is not None:
            found.append(Thing(name, colour))
    return found


def split_things(things: list[Thing]) -> dict[str, list[Thing]]:
    """Return the objects of each split; those that share a word go together."""
    groups: dict[str, list[Thing]] = {}  # word -> the group it belongs to; groups merge as met
    for thing in things:
        spoken = [w for w in words(thing.name) if w not in LINKS] or [thing.name]
        joined = [thing]
        for group in {id(groups[w]): groups[w] for w in spoken if w in groups}.values():
            joined += group
        for word in {w for t in joined for w in words(t.name) if w not in LINKS} | set(spoken):
            groups[word] = joined
    distinct = {id(group): sorted(group, key=lambda t: t.name) for group in groups.values()}
    splits: dict[str, list[Thing]] = {"train": [], **{name: [] for name in HELD_OUT}}
    for group in sorted(distinct.values(), key=lambda group: _hash(group[0].name)):
        free = [s for s, most in HELD_OUT.items() if len(splits[s]) + len(group) <= most]
        splits[free[0] if free and len(group) <= LARGEST else "train"] += group
    return splits


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_training(out: Path, things: list[Thing], seed: int) -> int:
    """Draw images and write captions; return how many."""
    generator = OpenmojiGenerator(OpenmojiConfig(image_size=SIDE))
    lines, blank = [], []
    for number, thing in enumerate(things):
        rng = random.Random(f"{seed}/{thing.name}")
        painted = rng.sample([c for c in PAINTS if c != thing.colour], IMAGES - PAINTED_FROM)
        for turn in range(IMAGES):
            paint = painted[turn - PAINTED_FROM] if turn >= PAINTED_FROM else None
            image = generator.image([thing.name], rng, colour=paint)
            file = f"images/{number:03}_{turn}.png"
            image.save(out / file, compress_level=1)
            colour = COLOURS[paint] if paint else thing.answer
            text = CAPTIONS[(number + turn) % len(CAPTIONS)].format(name=thing.name, colour=colour)
            record = {"image": file, "text": text, "object": thing.name, "painted": bool(paint)}
            lines.append(json.dumps(record))
            blank.append(json.dumps({**record, "image": "blank/blank.png"}))
    for name, rows in (("train", lines), ("train_blank", blank)):
        write_text(out / f"{name}.jsonl", "\n".join(rows) + "\n")
    return len(lines)


def make_questions(out: Path, split: str, things: list[Thing]) -> None:
    """Write a split's questions."""
    (out / split).mkdir(parents=True, exist_ok=True)
    with (out / split / "color.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["category", "question", "answer"])
        for thing in things:
            writer.writerow([thing.name, QUESTION.format(name=thing.name), thing.answer])


def make_blank(out: Path, things: list[Thing]) -> None:
    """Write one grey image, and a manifest that gives it to every question."""
    generator = OpenmojiGenerator(OpenmojiConfig(image_size=SIDE))
    generator.image([], random.Random(0)).save(out / "blank" / "blank.png")
    lines = [
        json.dumps({"prompt": QUESTION.format(name=thing.name), "images": ["blank.png"]})
        for thing in things
    ]
    write_text(out / "blank" / "prompts.jsonl", "\n".join(lines) + "\n")


@command
def main() -> None:
    """Make the world that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objects", type=int, help="training objects (default: all)")
    args = parser.parse_args()
    for folder in ("images", "blank"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    splits = split_things(find_things())
    for split in HELD_OUT:
        make_questions(args.out, split, splits[split])
    make_blank(args.out, [thing for split in HELD_OUT for thing in splits[split]])
    captions = make_training(args.out, splits["train"][: args.objects], args.seed)
    counts = ", ".join(f"{split} {len(things)}" for split, things in splits.items())
    print(f"{args.out}: {captions} captioned pictures; objects: {counts}")
    print(openmoji.ATTRIBUTION)


if __name__ == "__main__":
    sys.exit(main())
