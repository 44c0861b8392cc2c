"""Settings of verbalization stages; imports no torch.

A stage is one registered verbalizer with its settings; its name in the run file is the name of its
files. `writer` settings choose who writes texts: a local model, or a client of `lavis.llm`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lavis.common import registry
from lavis.common.config.errors import explain
from lavis.common.config.fields import STRICT, Fraction, PositiveFraction
from lavis.common.errors import ConfigError

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WriterConfig:
    """Who writes texts about images.

    `type: local` is any image-text-to-text model of transformers (BLIP-2 included); `type: client`
    hands requests to a client of `lavis.llm`, with images as data URLs.

    Attributes:
        type: who writes.
        max_tokens: most tokens of a text.
    """

    type: Literal["local", "client"] = "local"
    model: str = ""  # local: id or folder
    revision: str | None = None
    dtype: Dtype = "float32"
    batch_size: PositiveInt = 8
    client: dict[str, Any] = Field(default_factory=dict)  # client: `backend` and its settings
    image_size: PositiveInt = 1024  # client: longest edge of the image that is sent
    max_tokens: PositiveInt = 60
    # 0 is greedy; client: null is not sent, which leaves it to the server
    temperature: NonNegativeFloat | None = 1.0
    top_p: PositiveFraction | None = 0.9  # local: nucleus

    def __post_init__(self) -> None:
        if self.type == "local" and not self.model:
            raise ConfigError("model: missing; a local writer needs a model's id or folder")
        for name in ("temperature", "top_p"):
            if self.type == "local" and getattr(self, name) is None:
                raise ConfigError(f"{name}: null is for type client; a local writer needs a number")
        if self.type == "client":
            self._check_client()

    def _check_client(self) -> None:
        backend = self.client.get("backend")
        if backend is None:
            names = ", ".join(registry.llms.list())
            raise ConfigError(f"client.backend: missing; one of {names}")
        registry.llms.check(str(backend), "client.backend")
        cls = registry.llms.config_class(str(backend))
        try:
            TypeAdapter(cls).validate_python(self.client)
        except ValidationError as error:
            problems = explain(error, cls, self.client, "client", source=lambda _: "")
            lines = [line.removeprefix(", ") for line in problems.split("\n")]
            raise ConfigError("; ".join(lines)) from None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig:
    """What every stage has.

    Attributes:
        type: registered name of the verbalizer (the stage's name where it is missing).
    """

    type: str
    chunk: PositiveInt = 16  # images of one unit: what a killed run may lose and does again


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderOptions(StageConfig):
    """A model that puts texts and images into one space: CLIP, SigLIP and their kin.

    Attributes:
        score: how similarities become scores.
        min_score: words below it are left out.
    """

    model: str
    revision: str | None = None
    dtype: Dtype = "float32"
    batch_size: PositiveInt = 64
    score: Literal["auto", "softmax", "sigmoid", "similarity"] = "auto"
    # `auto` is softmax, and sigmoid for SigLIP, which was trained so.
    top_k: PositiveInt = 5
    min_score: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConceptsConfig(EncoderOptions):
    """Tags of the whole image from lists of words.

    Attributes:
        templates: texts around a word, whose embeddings are averaged.
    """

    # Kind of concept -> a list of `lavis/configs/vocabularies` or a file with a phrase a line.
    vocabularies: dict[str, str] = Field(
        default_factory=lambda: {"places": "places", "objects": "objects", "actions": "actions"}
    )
    templates: list[str] = Field(default_factory=lambda: ["a photo of {}"])

    def __post_init__(self) -> None:
        check_templates(self.templates)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttributesConfig(EncoderOptions):
    """Colours, materials, states of each region, cut out of its image.

    Attributes:
        vocabularies: kind of attribute -> list of words, as for concepts.
        templates: texts around a word, whose embeddings are averaged.
    """

    vocabularies: dict[str, str] = Field(
        default_factory=lambda: {"colors": "colors", "materials": "materials", "states": "states"}
    )
    templates: list[str] = Field(default_factory=lambda: ["a photo of something {}"])
    top_k: PositiveInt = 1  # of each vocabulary
    margin: NonNegativeFloat = 0.1  # shown around the region, of its edges

    def __post_init__(self) -> None:
        check_templates(self.templates)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CaptionsConfig(StageConfig):
    """Texts about the whole image: captions, or narratives by another prompt.

    Attributes:
        prompt: text for the writer; empty lets a captioner begin by itself.
        samples: texts of an image.
        into: which notes of a record the texts become.
    """

    writer: WriterConfig
    prompt: str = ""
    samples: PositiveInt = 3
    into: Literal["captions", "narratives"] = "captions"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegionCaptionsConfig(StageConfig):
    """A text about each region, which is drawn into its image or cut out of it.

    Attributes:
        show: the region drawn into its image, or cut out of it.
        line_width: draw: pixels of the outline.
    """

    writer: WriterConfig
    prompt: str = ""  # `{name}` is the region's name, `{id}` its number
    show: Literal["draw", "crop"] = "draw"
    margin: NonNegativeFloat = 0.1  # crop: shown around the region, of its edges
    line_width: PositiveInt | Literal["auto"] = "auto"
    image_size: PositiveInt = 480  # at which an `auto` line still has two pixels
    only_missing: bool = False  # leave regions alone that an earlier stage described


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectConfig(StageConfig):
    """Regions of images that come without any, by an open-vocabulary detector.

    Attributes:
        vocabulary: names looked for: a list of `lavis/configs/vocabularies` or a file.
        template: text around a name.
        threshold: boxes with a lower score are left out.
        max_regions: most regions of an image, the best ones.
    """

    model: str
    revision: str | None = None
    dtype: Dtype = "float32"
    vocabulary: str = "objects"
    template: str = "{}"
    batch_size: PositiveInt = 1  # images
    queries: PositiveInt = 64  # names the detector is asked for at a time
    threshold: Fraction = 0.2
    nms: Fraction = 0.5  # of two boxes that overlap more, the better one is kept
    max_regions: PositiveInt = 12
    replace: bool = False  # also where regions are given

    def __post_init__(self) -> None:
        check_templates([self.template])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundConfig(StageConfig):
    """Regions of images that come without any, by a vision-language model that writes boxes.

    Attributes:
        writer: the model; `temperature: 0` and some hundred `max_tokens` are of use.
        convention: a model's type (`qwen2_5_vl`) or a name of `lavis/configs/vlm/conventions.yaml`;
            null takes it from a local model's files.
        image_processor: what the model's `preprocessor_config.json` says, where a model's type is
            named and its server's settings are not those of the class.
        vocabulary: names looked for: a list of `lavis/configs/vocabularies` or a file.
        queries: names in one prompt, for models that look for several at once.
        max_regions: most regions of an image, the first ones.
    """

    writer: WriterConfig
    convention: str | None = None
    image_processor: dict[str, Any] | None = None
    vocabulary: str = "objects"
    queries: PositiveInt = 60
    nms: Fraction = 0.8  # of two boxes that overlap more, the first one is kept
    max_regions: PositiveInt = 12
    replace: bool = False  # also where regions are given

    def __post_init__(self) -> None:
        if self.convention is None and self.writer.type == "client":
            raise ConfigError(
                "convention: missing; name the type of the server's model, such as qwen2_5_vl"
            )
        if self.convention is None and self.image_processor is not None:
            raise ConfigError("image_processor: it goes with convention, a model's type")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DynamicConfig(StageConfig):
    """Questions that a language model asks after reading the descriptors, answered by another.

    Attributes:
        questions: number of them per image.
        ask_prompt, answer_prompt: templates with the places that stand in them.
    """

    asker: WriterConfig
    answerer: WriterConfig
    questions: PositiveInt = 3
    ask_prompt: str = (
        "You cannot see a picture, but you have notes on it:\n{notes}\n\n"
        "Ask {n} short questions whose answers would tell most about what is going on. "
        "Refer to regions as in the notes, such as [0]. One question a line, nothing else."
    )
    answer_prompt: str = "Question: {question} Short answer:"
    draw: bool = True  # the answerer sees the regions that the question names, drawn
    reads: list[str] | None = None  # names of stages; all before this one where it is missing
    max_notes: PositiveInt = 4000  # characters

    def __post_init__(self) -> None:
        for key, names in (("ask_prompt", ("{notes}",)), ("answer_prompt", ("{question}",))):
            for name in names:
                if name not in getattr(self, key):
                    raise ConfigError(f"{key}: no {name} in it")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SidecarConfig(StageConfig):
    """Descriptors that are ready: lines of JSON with `image` and any keys of a verbalized record.

    Regions are matched by id; their boxes stay those of the run's own regions.

    Attributes:
        path: the file of lines.
    """

    path: str
    chunk: PositiveInt = 256
    required: bool = False  # an image without a line is a failure, else it gets nothing


def check_templates(templates: list[str]) -> None:
    """Raise `ConfigError` for a template without a place for the word."""
    for template in templates:
        if "{}" not in template:
            raise ConfigError(f"templates: {template!r} has no {{}} for the word")
