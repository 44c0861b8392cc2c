"""The quickstart's loop, the data between its steps: facts, choices, corpora of equal size.

    python -m projects.quickstart.worlds.loop facts world/test.jsonl OUT --scenes 100
    python -m projects.quickstart.worlds.loop show corpus.jsonl OUT/corpus.jsonl
    python -m projects.quickstart.worlds.loop choices world/val.jsonl OUT/val.jsonl --seed 0
    python -m projects.quickstart.worlds.loop corpora corpus.jsonl kept.jsonl OUT \
        --world world/test.jsonl

`facts` writes what a world's scenes show as regions and sidecar descriptors for
`scripts/verbalize.py`. `show` lets every record draw all regions of its image, so that an image
is drawn and encoded once. `choices` asks "which is true of [1]?" with four answers, among the wrong
ones what is true of another region and what the teacher, who does not look, often says. `corpora`
writes `filtered.jsonl` (what the critic kept) and `unfiltered.jsonl` (a random sample, as many).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lavis.common.command import command
from lavis.common.storage.atomic import write_text
from projects.quickstart import openmoji
from projects.quickstart.loop_teacher import usual
from projects.quickstart.worlds.scenes import COLOURS

Record = dict[str, Any]
CHOICES = 4
KINDS = {"What is": "object", "What kind": "kind", "What colour": "colour"}


def read_lines(path: Path) -> list[Record]:
    """Return the JSON objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, records: Iterable[Record]) -> int:
    """Write JSON objects, one a line; return how many."""
    lines = [json.dumps(record) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")
    return len(lines)


def scenes(records: Iterable[Record]) -> list[Record]:
    """Return one record of each image, in order."""
    found: dict[str, Record] = {}
    for record in records:
        found.setdefault(record["image"], record)
    return list(found.values())


def shown_things(scene: Record) -> list[Record]:
    """Return the things that are highlighted, in the order of their numbers."""
    by_name = {int(thing["name"]): thing for thing in scene["references"]}
    return [by_name[number] for number in scene["region"]]


def facts_of(thing: Record) -> dict[str, str]:
    """Return fact -> value; a colour only where the thing has a clear one."""
    found = {"object": thing["obj_guess"], "kind": thing["tag"]}
    return found | ({"colour": thing["colour"]} if thing.get("colour") else {})


def make_facts(world: Path, out: Path, *, count: int | None = None) -> None:
    """Write `regions.jsonl` and `facts.jsonl` of a world file's first scenes (None: of all)."""
    found = scenes(read_lines(world))[:count]
    regions, facts = [], []
    for scene in found:
        things = shown_things(scene)
        boxes = [thing["boxes"][0] for thing in things]
        names = [thing["obj_guess"] for thing in things]
        regions.append({"image": scene["image"], "boxes": boxes, "names": names})
        noted = [facts_of(thing) for thing in things]
        described = [
            {"attributes": [fact[key] for key in ("kind", "colour") if key in fact]}
            for fact in noted
        ]
        facts.append({"image": scene["image"], "region_locations": described})
    write_lines(out / "regions.jsonl", regions)
    write_lines(out / "facts.jsonl", facts)
    print(f"{out}: facts of {len(found)} scenes")


def show_all(corpus: Path, out: Path) -> None:
    """Let every record draw all the regions that its teacher was shown."""
    records = [{**record, "region": record["region_all"]} for record in read_lines(corpus)]
    print(f"{out}: {write_lines(out, records)} records")


def make_choices(world: Path, out: Path, *, seed: int, per_scene: int) -> None:
    """Write questions about a world file's scenes, as many about each kind as there can be."""
    questions: list[Record] = []
    asked: Counter[str] = Counter()
    for scene in scenes(read_lines(world)):
        rng = random.Random(f"{seed}/{scene['image']}")
        topics = [(i, k) for i, thing in enumerate(shown_things(scene)) for k in facts_of(thing)]
        rng.shuffle(topics)
        topics.sort(key=lambda topic: asked[topic[1]])  # the kind asked least so far comes first
        for about, kind in topics[:per_scene]:
            asked[kind] += 1
            questions.append(choice_record(rng, scene, about, kind))
    write_lines(out, questions)
    print(f"{out}: {len(questions)} questions, {dict(sorted(asked.items()))}")


def choice_record(rng: random.Random, scene: Record, about: int, kind: str) -> Record:
    """Return one question; its wrong answers tempt those who do not look, or look elsewhere.

    One is true of another thing here, if there is one; one is what goes for usual; others are true
    of other things here before they are of none.
    """
    things = shown_things(scene)
    facts = facts_of(things[about])
    true, habit = facts[kind], usual(facts, kind)
    here = sorted({facts_of(t).get(kind, true) for t in scene["references"]} - {true, habit})
    elsewhere = rng.sample(here, len(here))
    rest = sorted(set(all_values(kind)) - {true, habit, *here})
    wrong = [*elsewhere[:1], habit, *elsewhere[1:], *rng.sample(rest, len(rest))][: CHOICES - 1]
    answers = rng.sample([true, *wrong], CHOICES)
    return {
        "image": scene["image"],
        "instance_id": f"{Path(scene['image']).stem}-{about}-{kind}",
        "references": [{**thing, "name": str(place)} for place, thing in enumerate(things)],
        "text_input": ["Which", "is", "true", "of", [about], "?"],
        "choices": [{"text_output": claim(about, kind, value)} for value in answers],
        "label": answers.index(true),
        "group": kind,
    }


def all_values(kind: str) -> Iterator[str]:
    """Yield what a fact of this kind can be."""
    if kind == "object":
        yield from openmoji.catalogue()
    else:
        yield from openmoji.KINDS if kind == "kind" else COLOURS


def claim(about: int, kind: str, value: str) -> list[Any]:
    """Return the tokens of a claim about a region."""
    if kind == "object":
        return [[about], "has", "the", "shape", "of", "the", value, "."]
    if kind == "kind":
        return [[about], "belongs", "to", "the", value, "kind", "."]
    return [[about], "is", "painted", value, "."]


def is_true(record: Record, facts: dict[str, list[Record]]) -> bool:
    """Say whether a generated record's answer is what the facts say of its region."""
    words = record["question"]
    number = next(token[0] for token in words if isinstance(token, list))
    kind = KINDS[" ".join(words[:2]) if isinstance(words[1], str) else words[0]]
    said = [word for word in record["answer"] if word != "."][-1]
    return facts[record["image"]][number].get(kind) == said


def make_corpora(corpus: Path, kept: Path, out: Path, *, world: Path, seed: int) -> None:
    """Write both corpora and `corpora.json`: how many records, and how many are true."""
    facts = {s["image"]: [facts_of(t) for t in shown_things(s)] for s in scenes(read_lines(world))}
    everything, filtered = read_lines(corpus), read_lines(kept)
    rng = random.Random(f"{seed}/unfiltered")
    sample = rng.sample(everything, min(len(filtered), len(everything)))
    report = {}
    for name, records in (("generated", everything), ("filtered", filtered), ("sample", sample)):
        true = sum(is_true(record, facts) for record in records)
        report[name] = {"records": len(records), "true": true}
        print(f"{name:10} {len(records):6} records, {true / max(1, len(records)):.1%} true")
    write_lines(out / "filtered.jsonl", filtered)
    write_lines(out / "unfiltered.jsonl", sample)
    write_text(out / "corpora.json", json.dumps(report, indent=2) + "\n")


@command
def main() -> None:
    """Make what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    facts = commands.add_parser("facts")
    facts.add_argument("world", type=Path)
    facts.add_argument("--scenes", type=int, help="the first so many (default all)")
    show = commands.add_parser("show")
    show.add_argument("corpus", type=Path)
    choices = commands.add_parser("choices")
    choices.add_argument("world", type=Path)
    choices.add_argument("--per-scene", type=int, default=2)
    corpora = commands.add_parser("corpora")
    corpora.add_argument("corpus", type=Path)
    corpora.add_argument("kept", type=Path)
    for part in (facts, show, choices, corpora):
        part.add_argument("out", type=Path)
        part.add_argument("--seed", type=int, default=0)
    corpora.add_argument("--world", type=Path, required=True, help="the scenes' facts")
    args = parser.parse_args()
    if args.command == "facts":
        make_facts(args.world, args.out, count=args.scenes)
    elif args.command == "show":
        show_all(args.corpus, args.out)
    elif args.command == "choices":
        make_choices(args.world, args.out, seed=args.seed, per_scene=args.per_scene)
    else:
        make_corpora(args.corpus, args.kept, args.out, world=args.world, seed=args.seed)


if __name__ == "__main__":
    sys.exit(main())
