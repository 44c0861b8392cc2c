"""Questions a student reads and answers it writes: training by prefixes, evaluation by QARs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import RecordError
from lavis.common.registry import datasets
from lavis.datasets.config import GenerativeDatasetConfig
from lavis.datasets.lck.regions import RegionDataset
from lavis.datasets.lck.text import choose_regions, instance_of, qar_text
from lavis.datasets.lck.tokens import Tokens, read_tokens
from lavis.datasets.rows import Row
from lavis.processors.region import tokens_to_text

if TYPE_CHECKING:
    from lavis.datasets.rows import Images

ANSWER, RATIONALE = "Answer:", "Rationale:"


@datasets.register("unified_vqa_chatgpt")
class GenerativeDataset(RegionDataset):
    """`text_input` and `text_output` of a record, with all its regions drawn.

    In evaluation the input is `question Answer:` and the output `answer Rationale: rationale`. In
    training the whole text is cut at a random word of its first half (`split_at`). Records with
    `text_input` and `text_output` keep their own cut. Only inputs get the processor's prompt. Each
    part is cut separately to the processor's number of words.
    """

    config_class: ClassVar[type[GenerativeDatasetConfig]] = GenerativeDatasetConfig
    config: GenerativeDatasetConfig

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        record = self.store.read(index)
        file = self.image_file(index, record)
        shuffle = rng if self.is_train else None
        regions = self.find_regions(
            record, choose_regions(record, self.config.region_prob, shuffle)
        )
        tags, named = self.tags(regions), self.config.source(self.split).use_object_tags
        before, behind = self._parts(
            record,
            lambda tokens: tokens_to_text(tokens, tags, use_object_tags=named),
            shuffle,
        )
        prefix, target = self.text_processor(before), self._without_prompt(behind)
        if not target.strip():
            raise RecordError("empty text: nothing is left of the output")
        drawing = self.draw(file, regions, record)
        fields = {"index": index, "instance": instance_of(record, index), "text_output": target}
        return Row(
            index,
            self._image_key(drawing),
            prefix,
            fields,
            parts=({"question": before.removesuffix(ANSWER).strip(), "answer": behind},),
            targets={"text_output": target},
            drawing=drawing,
        )

    def _parts(
        self,
        record: Mapping[str, Any],
        write: Callable[[Tokens], str],
        rng: random.Random | None,
    ) -> tuple[str, str]:
        """Return input and output, before the text processor."""
        if "text_input" in record and "question" not in record:
            parts = [write(read_tokens(record, key)) for key in ("text_input", "text_output")]
            if not parts[1].strip():
                raise RecordError("empty text: text_output")
            return parts[0], parts[1]
        with_rationale = self.config.include_rationale
        whole = qar_text(record, include_rationale=with_rationale, write=write)
        if "question" in record and (rng is None or self.config.split_at == "question"):
            question = f"{write(read_tokens(record, 'question'))} {ANSWER}"
            return question, whole.removeprefix(question).strip()
        return _cut(whole, rng)

    def _without_prompt(self, text: str) -> str:
        return self.text_processor(text).removeprefix(getattr(self.text_processor, "prompt", ""))

    def collate(
        self, rows: Sequence[Row], images: Images | None, image_index: Sequence[int]
    ) -> dict[str, Any]:
        """See `RecordDataset`; adds `text_output`, one for each text."""
        samples = super().collate(rows, images, image_index)
        samples["text_output"] = [row.targets["text_output"] for row in rows]
        return samples


def _cut(text: str, rng: random.Random | None) -> tuple[str, str]:
    """Return a text's first k words and the rest, k from 1 to half of them (half without `rng`).

    Raises:
        RecordError: one word only; the released code stopped there with an error of its own.
    """
    words = text.split()
    if len(words) < 2:
        raise RecordError(f"text too short: {text.strip()!r} cannot be cut in two")
    half = len(words) // 2
    first = half if rng is None else rng.randint(1, half)
    return " ".join(words[:first]), " ".join(words[first:])
