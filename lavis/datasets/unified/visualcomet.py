"""VisualCOMET ranking: true inferences among candidates, for each image, event and relation.

Format as published: `val_annots.json` is a list of `{img_fn, metadata_fn, place, event, intent,
before, after}`; the last three are lists of inferences. Texts write people as numbers from 1, the
place of their box in the metadata of the VCR image. The publication's Acc@50 ranks 50 candidates,
which the annotations do not list. They are read from `candidates` (lines of `{img_fn, event,
relation, candidates}`, a form of ours) or, also our choice, drawn by seed among the inferences of
the same relation of other images that name no person whom event and truths do not name.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis.common.command import at_least
from lavis.common.errors import REFUSALS, DataError, RecordError
from lavis.datasets.files.items import FileItem, read_items
from lavis.datasets.lck.tokens import mentioned
from lavis.datasets.unified.convert import Converter, flag
from lavis.datasets.unified.record import (
    fields,
    join_path,
    make_record,
    name_in,
    numbers_to_ids,
    person_of,
    scaled,
    texts_in,
)
from lavis.datasets.unified.vcr import ImageObjects

# relation -> the question that the inference answers; {person} is the event's first person
QUESTIONS = {
    "before": "What did {person} need to do before ?",
    "after": "What will {person} most likely do after ?",
    "intent": "Why does {person} do this ?",
}


@dataclass(frozen=True, kw_only=True)
class VisualCometConverter(Converter):
    """One record per relation of an event; `truth` marks true candidates, `group` is the relation.

    Attributes:
        image_dir: folder of `metadata_fn` (`vcr1images`).
        candidates: published or own candidate lists; None draws `count` in all.
        count: candidates of a record, the true ones included.
        with_place: write the place after the event.
    """

    image_prefix: str = flag("vcr1images")
    image_dir: Path = flag(type=Path, required=True, help="vcr1images, with the metadata")
    candidates: Path | None = flag(None, type=Path, help="lists to rank; default: drawn")
    count: int = flag(50, type=at_least(1), help="candidates of a record")
    seed: int = flag(0, type=int)
    with_place: bool = flag(True, "--no-place", action="store_false")
    _texts: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False)
    _images: dict[tuple[str, str], set[str]] = field(default_factory=dict, init=False, repr=False)
    _listed: dict[tuple[str, ...], list[str]] = field(default_factory=dict, init=False, repr=False)

    def items(self) -> Iterator[FileItem]:
        if self.candidates is not None:
            self._read_lists(self.candidates)
        else:
            self._read_pools()
        for item in read_items(self.annotations):
            if not isinstance(item.value, Mapping):
                yield item
                continue
            for relation in QUESTIONS:  # a bad relation leaves the others alone
                if item.value.get(relation):
                    place = {**item.place, "relation": relation}
                    yield FileItem(place, (_number(item), relation, item.value), item.error)

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        number, relation, entry = value
        truths = list(dict.fromkeys(text.strip() for text in texts_in(entry, relation)))
        name = name_in(entry, "img_fn")
        objects = ImageObjects.read(self.image_dir / name_in(entry, "metadata_fn"))
        people = len(objects.boxes)
        event = numbers_to_ids(entry["event"], people)
        true_tokens = [token for text in truths for token in numbers_to_ids(text, people)]
        allowed = set(mentioned([*event, *true_tokens]))
        texts = self._candidates_of(entry, relation, truths, allowed)
        candidates = [numbers_to_ids(text, people) for text in texts]
        question = [*event, "."]
        if self.with_place and entry.get("place"):
            question = [*event, ",", *numbers_to_ids(entry["place"], people), "."]
        named = mentioned(event)
        for word in QUESTIONS[relation].split():
            question.append((named[:1] or "someone") if word == "{person}" else word)
        ids = mentioned([*question, *(token for tokens in candidates for token in tokens)])
        references, size = scaled(objects.references(ids), objects.size, self.image_dir / name)
        yield make_record(
            image=join_path(self.image_prefix, name),
            instance_id=f"{number}-{relation}",
            question=question,
            candidates=candidates,
            references=references,
            size=size,
            truths=[int(text in truths) for text in texts],
            group=relation,
        )

    def _candidates_of(
        self, entry: Mapping[str, Any], relation: str, truths: list[str], allowed: set[int]
    ) -> list[str]:
        if self.candidates is not None:
            key = (entry["img_fn"], entry["event"], relation)
            if key not in self._listed:
                raise RecordError(f"no candidates: {self.candidates.name} lists none")
            if not set(truths) & set(self._listed[key]):
                raise RecordError("no true candidate: the list holds none")
            return self._listed[key]
        wanted = self.count - len(truths)
        if wanted < 1:
            raise RecordError(f"too few candidates: {len(truths)} are true, count is {self.count}")
        rng = random.Random(f"{self.seed}/{entry['img_fn']}/{entry['event']}/{relation}")
        drawn = self._draw(rng, relation, wanted, entry["img_fn"], allowed)
        if len(drawn) < wanted:
            raise RecordError(f"too few candidates: {len(drawn) + len(truths)} of {self.count}")
        texts = [*truths, *drawn]
        rng.shuffle(texts)
        return texts

    def _draw(
        self, rng: random.Random, relation: str, wanted: int, image: str, allowed: set[int]
    ) -> list[str]:
        """Return inferences of other images that name allowed people only."""
        texts = self._texts[relation]
        drawn: list[str] = []
        for tried in (min(len(texts), 20 * self.count), len(texts)):  # all where some do not do
            drawn = []
            for place in rng.sample(range(len(texts)), tried):
                text = texts[place]
                people = {n - 1 for word in text.split() if (n := person_of(word))}
                if people <= allowed and image not in self._images[relation, text]:
                    drawn.append(text)
                if len(drawn) == wanted:
                    return drawn
        return drawn

    def _read_pools(self) -> None:
        for item in read_items(self.annotations):
            if not isinstance(item.value, Mapping):
                continue
            for relation in QUESTIONS:
                listed = item.value.get(relation)
                for text in listed if isinstance(listed, list) else []:
                    if isinstance(text, str) and text.strip():
                        key = (relation, text.strip())
                        if key not in self._images:
                            self._texts.setdefault(relation, []).append(text.strip())
                        self._images.setdefault(key, set()).add(str(item.value.get("img_fn")))

    def _read_lists(self, path: Path) -> None:
        for item in read_items(path):
            try:
                entry = fields(item.value)
                key = (entry["img_fn"], entry["event"], entry["relation"])
                listed = texts_in(entry, "candidates")
                self._listed[key] = list(dict.fromkeys(text.strip() for text in listed))
            except REFUSALS:
                raise DataError(
                    f"{path}: {item.place}: a line of img_fn, event, relation, candidates was "
                    "expected"
                ) from None


def _number(item: FileItem) -> int:
    return item.place.get("item") or item.place["line"]
