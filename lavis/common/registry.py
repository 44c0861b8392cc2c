"""Names users write in a config, and the classes they stand for, imported when first used.

Each kind of thing has one `Registry` and, in it, one table of lazy targets, so that checking a
configuration or printing `--help` imports no torch. A class outside this table joins in a module
listed under `run.import_modules`: with `@models.register("name")`, or with
`models.extend("name", Target(...))`, which imports it when first used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from lavis.common.errors import ConfigError, nearest

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Target:
    """Where a registered class lives.

    Attributes:
        cls: `package.module:Class`.
        config: `package.module:Dataclass` that checks its section of a config; a light import.
        defaults: type name -> default YAML, relative to `lavis/configs`.
    """

    cls: str
    config: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Names of one kind of thing. Never returns None: an unknown name raises `ConfigError`.

    Args:
        kind: what the names stand for, as messages call it.
        targets: name -> class of this package.
        plugins: name, or type, -> module outside this package that registers it, for an error.
    """

    def __init__(
        self,
        kind: str,
        targets: Mapping[str, Target],
        plugins: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._targets = dict(targets)
        self._classes: dict[str, type] = {}
        self._extensions: dict[str, Target] = {}
        self._plugins = dict(plugins or {})

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: `name` stands for the class from now on.

        Raises:
            ConfigError: the name is taken by another class.
        """

        def decorate(cls: T) -> T:
            path = f"{cls.__module__}:{cls.__qualname__}"
            taken = self._classes.get(name)
            target = self._targets.get(name)
            if taken is not None or (target is not None and target.cls != path):
                owner = target.cls if target is not None else f"{taken}"
                raise ConfigError(f"{self.kind} '{name}' is registered already, as {owner}")
            self._classes[name] = cls
            return cls

        return decorate

    def extend(self, name: str, target: Target) -> None:
        """Let a class of a plug-in stand for `name` in this process, and add its default YAMLs.

        The name is new, or that of a class here; then sections that this class accepts must mean
        the same to the plug-in's.

        Raises:
            ConfigError: the name is extended by another class.
        """
        if self._extensions.setdefault(name, target) != target:
            owner = self._extensions[name].cls
            raise ConfigError(f"{self.kind} '{name}' is extended already, by {owner}")

    def get(self, name: str) -> Any:
        """Return the class of `name`, importing its module on first use."""
        self.check(name)
        if name in self._extensions:
            return load(self._extensions[name].cls)
        if name not in self._classes:
            self._classes[name] = load(self._targets[name].cls)
        return self._classes[name]

    def config_class(self, name: str) -> Any:
        """Return the dataclass that checks this thing's section, without importing the thing."""
        self.check(name)
        target = self._extensions.get(name, self._targets.get(name))
        if target is not None and target.config is not None:
            return load(target.config)
        return self.get(name).config_class

    def defaults(self, name: str) -> Mapping[str, str]:
        """Return type name -> default YAML (relative to `lavis/configs`, or absolute)."""
        self.check(name)
        targets = [self._targets.get(name), self._extensions.get(name)]
        if not any(targets):
            return getattr(self._classes[name], "default_configs", {})
        return {k: v for target in targets if target for k, v in target.defaults.items()}

    def check(self, name: str, key: str = "") -> None:
        """Raise `ConfigError` with near matches unless `name` is known."""
        if name in self.list():
            return
        where = f"{key}: " if key else ""
        self.check_plugin(name, f"{where}{self.kind} '{name}'")
        known = [*self.list(), *self._plugins]
        raise ConfigError(f"{where}unknown {self.kind} '{name}'{nearest(name, known)}")

    def check_plugin(self, name: str, what: str) -> None:
        """Raise `ConfigError` naming the module to import where a plug-in registers `name`."""
        if name in self._plugins:
            module = self._plugins[name]
            raise ConfigError(
                f"{what} is registered by {module}; add run.import_modules: [{module}] (needs a "
                "checkout, no wheel holds it)"
            )

    def list(self) -> list[str]:
        """Return every known name, sorted."""
        return sorted({*self._targets, *self._extensions, *self._classes})


def import_module(name: str, where: str) -> ModuleType:
    """Import a module that a user names.

    What lies beside the package `lavis`, such as a checkout's `projects`, is found from any working
    directory, after all that is on the path already.

    Args:
        name: dotted name of the module.
        where: of the name, for the message.

    Raises:
        ConfigError: it cannot be imported.
    """
    beside = str(Path(__file__).resolve().parents[2])
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{where}: cannot import {name}: {error}") from None


def load(path: str) -> Any:
    """Return what `package.module:name` stands for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


_MATCHER_TYPES = {
    "pretrain": "models/blip2/blip2_pretrain.yaml",
    "pretrain_vitL": "models/blip2/blip2_pretrain_vitL.yaml",
    "coco": "models/blip2/blip2_coco.yaml",
}

models = Registry(
    "model",
    {
        "blip2_critic": Target(
            "lavis.models.blip2.critic:Blip2Critic",
            "lavis.models.blip2.config:CriticConfig",
            _MATCHER_TYPES,
        ),
        "blip2": Target(
            "lavis.models.blip2.stage1:Blip2Stage1",
            "lavis.models.blip2.config:Stage1Config",
            _MATCHER_TYPES,
        ),
        "blip2_t5": Target(
            "lavis.models.blip2.generative:Blip2T5",
            "lavis.models.blip2.config:T5Config",
            {"pretrain_flant5xl": "models/blip2/blip2_pretrain_flant5xl.yaml"},
        ),
        "blip2_opt": Target(
            "lavis.models.blip2.generative:Blip2OPT",
            "lavis.models.blip2.config:OPTConfig",
            {"pretrain_opt2.7b": "models/blip2/blip2_pretrain_opt2.7b.yaml"},
        ),
        "blip2_llm": Target(
            "lavis.models.blip2.generative:Blip2LLM",
            "lavis.models.blip2.config:LLMConfig",
            {"pretrain": "models/blip2/blip2_llm.yaml"},
        ),
        "late_fusion": Target(
            "lavis.models.late_fusion.model:LateFusion",
            "lavis.models.late_fusion.config:LateFusionConfig",
            {
                "default": "models/late_fusion/default.yaml",
                "quickstart": "models/late_fusion/quickstart.yaml",
            },
        ),
    },
    {"quickstart": "projects.quickstart"},
)

datasets = Registry(
    "dataset",
    {
        "unified_vqa_binary": Target(
            "lavis.datasets.lck.dataset:LckDataset",
            "lavis.datasets.config:LckConfig",
            {"default": "datasets/unified_vqa_binary/default.yaml"},
        ),
        "laion_sample_extracted": Target(
            "lavis.datasets.lck.laion:LaionDataset",
            "lavis.datasets.config:LaionConfig",
            {"default": "datasets/laion/defaults_sample_extracted.yaml"},
        ),
        "unified_contrastive": Target(
            "lavis.datasets.lck.contrastive:ContrastiveDataset",
            "lavis.datasets.config:ContrastiveConfig",
            {"default": "datasets/unified_contrastive/default.yaml"},
        ),
        "unified_vqa_chatgpt_contrastive": Target(
            "lavis.datasets.lck.contrastive:ContrastiveDataset",
            "lavis.datasets.config:ContrastiveConfig",
            {"default": "datasets/unified_vqa_chatgpt/contrastive.yaml"},
        ),
        "unified_vqa_chatgpt": Target(
            "lavis.datasets.lck.generative:GenerativeDataset",
            "lavis.datasets.config:GenerativeDatasetConfig",
            {"default": "datasets/unified_vqa_chatgpt/default.yaml"},
        ),
        "benchmark": Target(
            "lavis.datasets.benchmarks.dataset:BenchmarkDataset",
            "lavis.datasets.benchmarks.config:BenchmarkConfig",
            {"default": "datasets/benchmarks/default.yaml"},
        ),
        "captioned_images": Target(
            "lavis.datasets.captions.dataset:CaptionedImages",
            "lavis.datasets.captions.config:CaptionedImagesConfig",
            {"default": "datasets/captioned_images/default.yaml"},
        ),
        "cropped_vg": Target(
            "lavis.datasets.captions.visual_genome:CroppedVisualGenome",
            "lavis.datasets.captions.config:CroppedVgConfig",
            {"default": "datasets/cropped_vg/default.yaml"},
        ),
        "laion_220": Target(
            "lavis.datasets.captions.laion_220:LaionCaptions",
            "lavis.datasets.captions.config:LaionCaptionsConfig",
            {"default": "datasets/laion_220/default.yaml"},
        ),
        "wiki": Target(
            "lavis.datasets.captions.wiki:WikiDataset",
            "lavis.datasets.captions.config:WikiConfig",
            {"default": "datasets/wiki/default.yaml"},
        ),
    },
)

tasks = Registry(
    "task",
    {
        "multimodal_classification": Target(
            "lavis.tasks.filtering.task:MultimodalClassificationTask",
            "lavis.tasks.config:ClassificationConfig",
        ),
        "comparison": Target(
            "lavis.tasks.comparison.task:ComparisonTask", "lavis.tasks.config:ComparisonConfig"
        ),
        "image_text_pretrain": Target(
            "lavis.tasks.answering:ImageTextPretrainTask", "lavis.tasks.config:PretrainConfig"
        ),
        "visual_answering": Target(
            "lavis.tasks.answering:VisualAnsweringTask", "lavis.tasks.config:AnsweringConfig"
        ),
        "visual_questions": Target(
            "lavis.tasks.questions.task:VisualQuestionsTask",
            "lavis.tasks.questions.config:VisualQuestionsConfig",
        ),
        "visual_language_modeling": Target(
            "lavis.tasks.language_modeling.task:VisualLanguageModelingTask",
            "lavis.tasks.language_modeling.config:LanguageModelingConfig",
        ),
    },
)

processors = Registry(
    "processor",
    {
        "base": Target("lavis.processors.base:Identity"),
        "blip_image_eval": Target("lavis.processors.image:BlipImageEval"),
        "blip_image_train": Target("lavis.processors.image:BlipImageTrain"),
        "blip2_image_train": Target("lavis.processors.image:Blip2ImageTrain"),
        "clip_image": Target("lavis.processors.clip:ClipImage"),
        "blip_caption": Target("lavis.processors.text:BlipCaption"),
        "blip_question": Target("lavis.processors.text:BlipQuestion"),
        "blip_unified_vqa": Target("lavis.processors.text:BlipUnifiedVqa"),
    },
)

generators = Registry(
    "generator",
    {
        "diffusion": Target(
            "lavis.generators.diffusion:DiffusionGenerator",
            "lavis.generators.config:DiffusionConfig",
        ),
        "retrieval": Target(
            "lavis.generators.retrieval:RetrievalGenerator",
            "lavis.generators.config:RetrievalConfig",
        ),
        "folder": Target(
            "lavis.generators.folder:FolderGenerator", "lavis.generators.config:FolderConfig"
        ),
        "text_embed": Target(
            "lavis.generators.text_embed:TextEmbedGenerator",
            "lavis.generators.config:TextEmbedConfig",
        ),
    },
    {"openmoji": "projects.quickstart"},
)

scorers = Registry(
    "scorer",
    {"clip": Target("lavis.generators.scoring:ClipScorer")},
    {"named": "projects.quickstart"},
)

llms = Registry(
    "language-model backend",
    {
        "openai": Target(
            "lavis.llm.endpoint.backend:OpenAIBackend", "lavis.llm.config:OpenAIConfig"
        ),
        "transformers": Target(
            "lavis.llm.local:TransformersBackend", "lavis.llm.config:TransformersConfig"
        ),
        "scripted": Target("lavis.llm.scripted:ScriptedBackend", "lavis.llm.config:ScriptedConfig"),
    },
)

verbalizers = Registry(
    "verbalizer",
    {
        "concepts": Target(
            "lavis.verbalizers.concepts:ConceptTagger", "lavis.verbalizers.config:ConceptsConfig"
        ),
        "attributes": Target(
            "lavis.verbalizers.concepts:AttributeTagger",
            "lavis.verbalizers.config:AttributesConfig",
        ),
        "captions": Target(
            "lavis.verbalizers.captions:CaptionWriter", "lavis.verbalizers.config:CaptionsConfig"
        ),
        "region_captions": Target(
            "lavis.verbalizers.captions:RegionCaptionWriter",
            "lavis.verbalizers.config:RegionCaptionsConfig",
        ),
        "detect": Target(
            "lavis.verbalizers.detection:Detector", "lavis.verbalizers.config:DetectConfig"
        ),
        "dynamic": Target(
            "lavis.verbalizers.dynamic:DynamicQuestions", "lavis.verbalizers.config:DynamicConfig"
        ),
        "sidecar": Target(
            "lavis.verbalizers.sidecar:SidecarReader", "lavis.verbalizers.config:SidecarConfig"
        ),
    },
)

runners = Registry(
    "runner",
    {
        "runner_base": Target("lavis.runners.runner:RunnerBase"),
        "runner_iter": Target("lavis.runners.runner:RunnerIter"),
    },
)

_LIBRARY_SCHEDULES = (  # of transformers, under its names
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
)  # fmt: skip

lr_schedulers = Registry(
    "lr schedule",
    {
        "linear_warmup_cosine_lr": Target("lavis.common.optim:LinearWarmupCosine"),
        "linear_warmup_step_lr": Target("lavis.common.optim:LinearWarmupStep"),
        "constant_lr": Target("lavis.common.optim:Constant"),
        "linear_warmup_cosine_step_lr": Target("lavis.common.optim:LinearWarmupCosinePerStep"),
        **{name: Target("lavis.common.optim:LibrarySchedule") for name in _LIBRARY_SCHEDULES},
    },
)
