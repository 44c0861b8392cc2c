"""Image-text pairs for the student: the filtered corpus in training, ranked choices in evaluation.

C is the number of choices of a record.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from lavis.common.errors import RecordError
from lavis.common.registry import datasets
from lavis.datasets.config import ContrastiveConfig
from lavis.datasets.files.images import ImageFile
from lavis.datasets.lck.record import Region, name_hash, read_references, read_score
from lavis.datasets.lck.regions import RegionDataset
from lavis.datasets.lck.text import choose_regions, instance_of, qar_parts
from lavis.datasets.lck.tokens import check_tokens, read_tokens
from lavis.datasets.rows import Row
from lavis.processors.region import RegionTag, tokens_to_text


@datasets.register("unified_contrastive")
@datasets.register("unified_vqa_chatgpt_contrastive")
class ContrastiveDataset(RegionDataset):
    """LCK records give one text; records with `choices` (or `text_input`) give one for each.

    A choice holds `text_output` (words and id lists) and, where known, `score` (people's rating, or
    a list with one per rater) or `truth` (0 or 1); `label` is the right choice; results are also
    listed by `group`.

    `image_id` is the same for all records of one image, in every file and process. Regions are
    shuffled in training only; the released code also did so in evaluation, so that its numbers and
    colours changed from run to run.
    """

    config_class: ClassVar[type[ContrastiveConfig]] = ContrastiveConfig
    config: ContrastiveConfig

    def __init__(self, config: ContrastiveConfig, split: str, *, name: str) -> None:
        super().__init__(config, split, name=name)
        self.source_options = config.source(split)

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        record = self.store.read(index)
        file = self.image_file(index, record)
        shuffle = rng if self.is_train else None
        is_evaluation = "text_input" in record and "question" not in record
        read = self._evaluation_row if is_evaluation else self._pair_row
        return read(index, record, file, shuffle)

    def _pair_row(
        self, index: int, record: Mapping[str, Any], file: ImageFile, rng: random.Random | None
    ) -> Row:
        shuffle = self.config.shuffle_regions
        ids = choose_regions(record, self.config.region_prob, rng, shuffle=shuffle)
        with_rationale = rng is None or rng.random() < self.config.rationale_prob
        regions = self.find_regions(record, ids)
        tags = self._tags(regions)
        text, parts = qar_parts(
            record,
            include_rationale=with_rationale,
            write=lambda tokens: self._text(tokens, tags),
        )
        text = self.text_processor(text)
        fields = {"index": index, "instance": instance_of(record, index)}
        return self._make(index, record, file, regions, [text], [parts], fields, {})

    def _evaluation_row(
        self, index: int, record: Mapping[str, Any], file: ImageFile, rng: random.Random | None
    ) -> Row:
        ids = list(read_references(record))
        if rng is not None:
            ids = rng.sample(ids, len(ids))
        regions = self.find_regions(record, ids)
        tags = self._tags(regions)
        question = self._text(read_tokens(record, "text_input"), tags)
        prefix = str(record.get("answer_prefix", "Answer:"))
        if self.source_options.no_question:
            question = prefix = ""
        outputs, judged = self._outputs(record)
        choices = [self._text(output, tags) for output in outputs]
        if not all(text.strip() for text in choices):
            raise RecordError("empty text: text_output")
        texts = [self.text_processor(f"{question} {prefix} {text}") for text in choices]
        prompt = getattr(self.text_processor, "prompt", "")
        answers = [self.text_processor(text).removeprefix(prompt) for text in choices]
        fields: dict[str, Any] = {"index": index, "instance": instance_of(record, index)}
        if record.get("label") is not None:
            fields["label"] = _choice_label(record["label"], len(texts))
        if isinstance(record.get("group"), str):
            fields["group"] = record["group"]
        fields |= judged
        # separate for models that read a question and write an answer
        targets = {"question": self.text_processor(f"{question} {prefix}"), "answers": answers}
        if "scores" in judged:
            targets["scores"] = judged["scores"]
        parts = [{"question": question.strip(), "answer": text} for text in choices]
        return self._make(index, record, file, regions, texts, parts, fields, targets)

    def _outputs(self, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the answers' token lists, and `scores` (numbers, or a list each) and `truths`."""
        choices = record.get("choices")
        if not self.source_options.is_mc and choices is None:
            return [read_tokens(record, "text_output")], {}
        if not isinstance(choices, list) or not choices:
            raise RecordError("missing field: choices")
        for choice in choices:
            if not isinstance(choice, Mapping):
                raise RecordError("wrong type: choices holds something else than records")
        outputs = [check_tokens(c.get("text_output"), "choices.text_output") for c in choices]
        judged: dict[str, Any] = {}
        if all(choice.get("score") is not None for choice in choices):
            judged["scores"] = _ratings([choice["score"] for choice in choices])
        if all(choice.get("truth") is not None for choice in choices):
            judged["truths"] = [_flag(choice["truth"]) for choice in choices]
        return outputs, judged

    def _tags(self, regions: list[Region]) -> dict[int, RegionTag]:
        if self.source_options.no_regions and not self.source_options.use_object_tags:
            return {}
        return self.tags(regions)

    def _text(self, tokens: Any, tags: dict[int, RegionTag]) -> str:
        options = self.source_options
        return tokens_to_text(
            tokens, tags, use_object_tags=options.use_object_tags, no_ids=options.no_regions
        )

    def _make(
        self,
        index: int,
        record: Mapping[str, Any],
        file: ImageFile,
        regions: list[Region],
        texts: list[str],
        parts: list[dict[str, str]],
        fields: dict[str, Any],
        targets: dict[str, Any],
    ) -> Row:
        drawing = self.draw(file, [] if self.source_options.no_regions else regions, record)
        image_id = index if self.config.image_id == "row" else name_number(file)
        several = tuple(texts) if len(texts) > 1 else None
        return Row(
            index,
            self._image_key(drawing),
            texts[0],
            fields,
            texts=several,
            parts=tuple(parts),
            targets={**targets, "image_id": image_id},
            drawing=drawing,
        )


def name_number(file: ImageFile) -> int:
    """Return a number from 0 to 2**63 - 1 made from the image's name: equal names, equal ids."""
    return name_hash(file.name) >> 1


def _ratings(values: list[Any]) -> list[Any]:
    """Return one rater's scores `(C,)`, or several raters' `(R, C)` where choices hold lists."""
    if not any(isinstance(value, list) for value in values):
        return [read_score({"score": value}, "score") for value in values]
    if not all(isinstance(v, list) and len(v) == len(values[0]) and v for v in values):
        raise RecordError("wrong type: score is not a list of equally many raters in every choice")
    return [
        [read_score({"score": one}, "score") for one in rater]
        for rater in zip(*values, strict=True)
    ]


def _flag(value: Any) -> int:
    if value not in (0, 1):
        raise RecordError(f"wrong type: truth is {value!r}, expected 0 or 1")
    return int(value)


def _choice_label(value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise RecordError(
            f"wrong type: label is {value!r}, expected a choice from 0 to {count - 1}"
        )
    return value
