"""Sections of run files that generate text: `stages`, `generate`, and both kinds of `run`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from lavis.common import registry
from lavis.common.config.errors import explain
from lavis.common.config.fields import STRICT, Device, ExistingPath, OutputFolder, PositiveFraction
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VerbalizeRunConfig:
    """Section `run` of a verbalization.

    Attributes:
        output_dir: folder of everything the run writes.
        timeout_minutes: a rank without progress for this long is reported.
    """

    output_dir: OutputFolder
    seed: int = 42
    device: Device = "auto"
    num_workers: PositiveInt = 2  # threads that decode images ahead
    timeout_minutes: PositiveFloat = 30.0
    report_examples: NonNegativeInt = 24  # images shown in `report.html`
    import_modules: list[str] = Field(default_factory=list)  # modules that register verbalizers


def read_stages(node: Any) -> dict[str, Any]:
    """Return stage name -> its settings, checked by the dataclass of its `type`.

    A stage without `type` is of the type it is named after; one that is null is left out.

    Raises:
        ConfigError: a line for each problem.
    """
    if not isinstance(node, dict):
        raise ConfigError("a mapping of stage names to settings was expected")
    stages: dict[str, Any] = {}
    problems: list[str] = []
    for name, settings in node.items():
        try:
            if settings is not None:
                stages[name] = _read_stage(str(name), settings)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    if not stages:
        raise ConfigError("no stages; name one, such as concepts")
    return stages


def _read_stage(name: str, settings: Any) -> Any:
    if not re.fullmatch(r"[A-Za-z]\w*", name) or name == "pictures":
        raise ConfigError(f"{name}: a stage's name is letters, digits and '_', not 'pictures'")
    if not isinstance(settings, dict):
        raise ConfigError(f"{name}: a mapping was expected")
    node = {"type": name, **settings}
    registry.verbalizers.check(str(node["type"]), f"{name}.type")
    cls = registry.verbalizers.config_class(str(node["type"]))
    try:
        return TypeAdapter(cls).validate_python(node)
    except ValidationError as error:
        lines = explain(error, cls, node, name, source=lambda _: "")
        raise ConfigError("\n".join(ln.removeprefix(", ") for ln in lines.split("\n"))) from None


Stages = Annotated[dict[str, Any], PlainValidator(read_stages)]
"""Type of section `stages`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromptConfig:
    """One request for each image.

    Attributes:
        source: name in the corpus; None makes one of the other fields.
        style: regions named by number (`ids`) or by a phrase (`descriptions`).
        regions: `any`: every item is about one region or more; `none`: about the image.
        people: items about people; with regions, images without a person's are left out.
        num_items: question / answer / rationale items requested.
    """

    source: str | None = None
    style: Literal["ids", "descriptions"] = "ids"
    regions: Literal["any", "none"] = "any"
    people: bool = False
    num_items: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.num_items <= 50:
            raise ConfigError(f"num_items is {self.num_items}; use 1 to 50")

    @property
    def name(self) -> str:
        """Return the source's name."""
        end = "_people" if self.people else ""
        return self.source or f"llm_region_{self.regions}_{self.style}{end}"


Sense = Literal["text", "image", "crops"]


def _text_only() -> list[Sense]:
    return ["text"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerateConfig:
    """Section `generate`.

    Attributes:
        records: verbalized region mappings, one image a line.
        split: written into the corpus.
        prompts: each image gets one request for each.
        prompt_dir: folder of jinja2 templates that win over `lavis/configs/prompts/qar`, and with
            images over `qar_images` beside it.
        sees: what the model is given: `text` (notes), `image`, `crops` (each region with what is
            around it, three times its sides). Images come from `run.image_root`.
        shows: how images set the regions of a prompt apart: `drawn` in colours, `marks` with their
            numbers too, `coordinates` as text, `plain` not at all.
        convention: of coordinates: a model's type (`qwen3_vl`) or a name of
            `lavis/configs/vlm/conventions.yaml` (`unit`, `per_mille_json`).
        max_pixels: width times height that larger images are made smaller to before regions are
            drawn. Up to the default Qwen2.5-VL resizes alike whatever its settings are.
        image_format: of what is sent; png keeps every pixel at about six times the size.
        max_regions: most regions shown in a prompt; people first for prompts about them.
        max_captions, max_narratives, max_concepts, max_dialogue: likewise of global notes.
        max_tokens: of a reply.
        temperature, top_p, seed: of sampling; null is not sent, which leaves it to the server
            (some models take no number but their own).
        structured: request JSON by a schema.
        repair: request once more if a reply cannot be read.
        dry_run_sample: images whose prompts a dry run writes, to estimate the others.
    """

    records: list[ExistingPath]
    split: str = "train"
    prompts: list[PromptConfig]
    prompt_dir: ExistingPath | None = None
    sees: list[Sense] = Field(default_factory=_text_only)
    shows: Literal["drawn", "marks", "coordinates", "plain"] = "drawn"
    convention: str | None = None
    max_pixels: PositiveInt = 1_003_520
    image_format: Literal["jpeg", "png"] = "jpeg"
    max_regions: int = 10
    max_captions: int = 5
    max_narratives: int = 2
    max_concepts: int = 5
    max_dialogue: int = 8
    max_tokens: int = 800
    temperature: NonNegativeFloat | None = 0.7
    top_p: PositiveFraction | None = 1.0
    seed: int | None = 42
    structured: bool = True
    repair: bool = True
    dry_run_sample: int = 1000

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ConfigError("prompts: empty; write a list such as [{style: ids, regions: any}]")
        names = [prompt.name for prompt in self.prompts]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"prompts: two have the source '{name}'; give each its own")
        for field in ("max_tokens", "dry_run_sample"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be positive")
        self._check_sight()

    @property
    def sees_images(self) -> bool:
        """Return whether requests carry images."""
        return "image" in self.sees or "crops" in self.sees

    def _check_sight(self) -> None:
        if not self.sees or len(set(self.sees)) < len(self.sees):
            raise ConfigError(f"sees is {self.sees}; name each of text, image, crops at most once")
        if not self.sees_images and (self.shows, self.convention) != ("drawn", None):
            raise ConfigError("shows, convention: they are of images; add image to sees")
        if "image" not in self.sees and self.shows == "coordinates":
            raise ConfigError("shows: coordinates are of the whole image; add image to sees")
        if (self.shows == "coordinates") != (self.convention is not None):
            raise ConfigError(
                "convention: it goes with shows: coordinates; write a model's type (qwen3_vl) or a "
                "convention (unit, per_mille_json)"
            )
        told = "text" in self.sees or "crops" in self.sees or self.shows != "plain"
        for prompt in self.prompts:
            if prompt.regions == "none" and self.sees == ["crops"]:
                raise ConfigError(
                    f"prompts: {prompt.name} is about no region, so sees: [crops] shows it nothing"
                )
            if prompt.regions == "any" and prompt.style == "ids" and not told:
                raise ConfigError(
                    f"prompts: {prompt.name} names regions by number, and with shows: plain and "
                    "neither text nor crops in sees nothing says which they are"
                )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerationRunConfig:
    """Section `run`.

    Attributes:
        output_dir: corpus, rejects, summary, and the state from which a killed run resumes.
        compress: write `corpus.jsonl.zst`.
        image_root: folder that image names are relative to, for `generate.sees` and `report.html`,
            which without it shows none.
        report_examples: images on that page.
        import_modules: modules of yours that register language-model backends.
    """

    output_dir: OutputFolder
    compress: bool = False
    image_root: ExistingPath | None = None
    report_examples: NonNegativeInt = 24
    import_modules: list[str] = Field(default_factory=list)
