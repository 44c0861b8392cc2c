"""Images in the requests of a teacher that sees: message parts, and words for their regions."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lavis.common.errors import ConfigError, RecordError
from lavis.common.storage.inputs import Input, Watch
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.scene_views import SceneView, SceneViewer
from lavis.llm.base import image_part
from lavis.llm.replies.scene import SceneNotes
from lavis.tasks.knowledge.config import GenerateConfig, PromptConfig

JPEG_QUALITY = 92


@dataclass(frozen=True)
class PromptImages:
    """Images of one request.

    Attributes:
        parts: of the user's message, in order.
        values: of the templates: `sees`, `shown`, `num_crops`, `region_words`.
    """

    parts: list[dict[str, Any]]
    values: dict[str, Any]


class TeacherImages:
    """Shows the images of records as section `generate` says.

    A prompt about no region is shown the whole image as it is.

    Args:
        image_root: folder that image names are relative to.

    Raises:
        ConfigError: there is none, or a convention is not known.
    """

    def __init__(self, config: GenerateConfig, image_root: str | None) -> None:
        if image_root is None:
            raise ConfigError(
                f"generate.sees is {config.sees}: set run.image_root to the folder of the images"
            )
        self.root = ImageRoot(image_root)
        self._config = config
        self._names = ImageRoot(image_root, must_exist=False)
        try:
            self._with_regions = SceneViewer(
                self.root,
                shows=config.shows,
                convention=config.convention,
                max_pixels=config.max_pixels,
                whole="image" in config.sees,
                crops="crops" in config.sees,
            )
        except ConfigError as error:
            raise ConfigError(f"generate: {error}") from None
        self._plain = SceneViewer(self.root, shows="plain", max_pixels=config.max_pixels)

    def describe(self) -> dict[str, Any]:
        """Return what parts depend on beside the config, images and records; JSON-able."""
        return self._with_regions.describe()

    def watch(self, record: Mapping[str, Any]) -> Watch:
        """Return a watch over a record's image, to be begun before it is read."""
        watch = Watch([self.root.root])
        with contextlib.suppress(RecordError):  # a name that can be no image's
            watch.add(Input(os.path.abspath(self._names.find(record.get("image")).path)))
        return watch

    def view(self, record: Mapping[str, Any], scene: SceneNotes, prompt: PromptConfig) -> SceneView:
        """Return what a prompt shows of an image; raises `RecordError` where it cannot."""
        if prompt.regions == "none":
            return self._plain.view(record, [])
        return self._with_regions.view(record, [region.id for region in scene.regions])

    def show(
        self, record: Mapping[str, Any], scene: SceneNotes, prompt: PromptConfig
    ) -> PromptImages:
        """Return the parts of a request; raises `RecordError` where the image cannot be shown."""
        view = self.view(record, scene, prompt)
        about_regions = prompt.regions == "any"
        values = {
            "sees": self._config.sees,
            "shown": self._config.shows if about_regions else "plain",
            "num_crops": len(scene.regions)
            if about_regions and "crops" in self._config.sees
            else 0,
            "region_words": dict(view.words),
        }
        return PromptImages([image_part(self._encode(image)) for image in view.images], values)

    def _encode(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        if self._config.image_format == "png":
            image.save(buffer, "PNG")
        else:  # whole colours: thin outlines would run with every second column left out
            image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()
