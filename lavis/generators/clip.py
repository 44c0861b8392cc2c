"""CLIP of transformers: texts and images to unit vectors, float32.

Shapes: N texts or images, L tokens (at most 77), S edge in pixels, E width of the embeddings.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lavis.common.dist import pick_device
from lavis.common.errors import ConfigError
from lavis.common.pixels import CLIP_MEAN, CLIP_STD, clip_pixels
from lavis.common.pretrained import load_pretrained

logger = logging.getLogger(__name__)

# Parts of a config that change no vector.
_SAYS_NO_NUMBER = {"_name_or_path", "architectures", "dtype", "transformers_version"}
Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Preprocessing:
    """Image processing: resize of the shortest edge (bicubic, 8-bit values), centre crop."""

    shortest_edge: int = 224
    crop: int = 224
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD


def preprocess(images: Sequence[Image.Image], how: Preprocessing) -> Tensor:
    """Return pixel values `(N, 3, S, S)`: resize, centre crop, scale to [0, 1], normalise.

    With Pillow, so that values equal those of the published code's processor bit for bit.
    """
    if how.crop > how.shortest_edge:
        raise ConfigError(
            f"CLIP's crop, {how.crop}, is above its shortest edge, {how.shortest_edge}"
        )
    values = [
        clip_pixels(image, how.shortest_edge, how.crop, how.mean, how.std) for image in images
    ]
    return torch.from_numpy(np.stack(values))


def truncate(input_ids: Tensor, attention_mask: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Cut texts of more than `limit` tokens and keep their first and last one.

    Args:
        input_ids: `(N, L)`, padded on the right.
        attention_mask: `(N, L)`, 1 where a token is.

    Returns:
        Both `(N, min(L, limit))`; the last token of a cut text is its own last one, the end token.
    """
    if input_ids.shape[1] <= limit:
        return input_ids, attention_mask
    lengths = attention_mask.sum(dim=1)
    last = input_ids.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    ids, mask = input_ids[:, :limit].clone(), attention_mask[:, :limit]
    ids[:, -1] = torch.where(lengths > limit, last, ids[:, -1])
    return ids, mask


def released_mask(input_ids: Tensor) -> Tensor:
    """Return the additive mask `(N, 1, L, L)` that results when token ids stand as the mask.

    Every id but 1 then counts as hidden, and hidden twice over where it is also in the future, so
    a token averages over all before it (and over later tokens of id 1), unless id 1 is among them.
    """
    length = input_ids.shape[1]
    least = torch.finfo(torch.float32).min
    future = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).triu(1)
    causal = torch.zeros(length, length, device=input_ids.device).masked_fill(future, least)
    hidden = torch.zeros(input_ids.shape, device=input_ids.device)
    hidden = hidden.masked_fill(input_ids != 1, least)
    return causal[None, None] + hidden[:, None, None]


class ClipEncoder:
    """A frozen `CLIPModel`, its tokenizer and its image processing.

    Args:
        tokenize: texts to ids and mask `(N, L)`, padded on the right, not cut.
        compat: `released` repeats two faults of the published scores: the last 77 columns are
            kept instead of the first, and the ids stand as the mask (`released_mask`).
        text_identity: of the tokenizer.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenize: Tokenize,
        preprocessing: Preprocessing,
        *,
        compat: Literal["released"] | None = None,
        text_identity: str | None = None,
    ) -> None:
        whole: Any = model.float().eval().requires_grad_(False)
        self.model = whole
        self.tokenize = tokenize
        self.preprocessing = preprocessing
        self.compat = compat
        self._text_identity = text_identity
        self._home: torch.device = whole.logit_scale.device
        self.limit = int(whole.config.text_config.max_position_embeddings)
        self.width = int(whole.config.projection_dim)

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str = "auto", compat: Literal["released"] | None = None
    ) -> ClipEncoder:
        """Load by Hugging Face id or folder; `ConfigError` if it is missing or not a CLIP model."""
        from transformers import AutoConfig, CLIPModel, CLIPTokenizer

        refusal = f"clip_model: cannot load '{name}' as a CLIP model"
        kind = load_pretrained(AutoConfig, name, refusal=refusal).model_type
        if kind != "clip":  # it would load, most weights at random
            raise ConfigError(
                f"{refusal}: it is a '{kind}', whose scores are not CLIP's; name a CLIP model "
                "such as openai/clip-vit-base-patch32"
            )
        model: Any = load_pretrained(CLIPModel, name, refusal=refusal, dtype=torch.float32)
        tokenizer: Any = load_pretrained(CLIPTokenizer, name, refusal=refusal)

        def tokenize(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            rows = tokenizer(list(texts), verbose=False)["input_ids"]
            longest = max(len(row) for row in rows)
            pad = tokenizer.pad_token_id
            ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
            return ids, mask

        size = int(model.config.vision_config.image_size)
        return cls(
            model.to(pick_device(device)),
            tokenize,
            _processing_of(name, size),
            compat=compat,
            text_identity=_tokenizer_hash(tokenizer),
        )

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._home

    def release(self) -> None:
        """Take the model off its device; the next call takes it there again."""
        self.model.to("cpu")

    def fingerprint(self) -> dict[str, Any]:
        """Return what embeddings depend on, the kind of device too: a GPU rounds otherwise."""
        how = self.preprocessing
        return {
            "weights": _weights_hash(self.model),
            "config": _config_hash(self.model.config),
            "tokenizer": self._text_identity,
            "device": self._home.type,
            "pictures": [how.shortest_edge, how.crop, list(how.mean), list(how.std)],
            "compat": self.compat,
        }

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors `(N, E)` of texts."""
        return self.embed_ids(*self.tokenize(texts))

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors `(N, E)` of images."""
        return self.embed_pixels(preprocess(images, self.preprocessing))

    @torch.inference_mode()
    def embed_ids(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit vectors `(N, E)` of token ids `(N, L)`, cut to what the model can read."""
        if self.compat == "released":
            input_ids = input_ids[:, -self.limit :]
            mask = released_mask(input_ids)
        else:
            input_ids, mask = truncate(input_ids, attention_mask, self.limit)
        states = self.model.to(self._home).text_model(
            input_ids=input_ids.to(self.device), attention_mask=mask.to(self.device)
        )
        return F.normalize(self.model.text_projection(states.pooler_output), dim=-1)

    @torch.inference_mode()
    def embed_pixels(self, pixel_values: Tensor) -> Tensor:
        """Return unit vectors `(N, E)` of pixel values `(N, 3, S, S)`."""
        states = self.model.to(self._home).vision_model(pixel_values=pixel_values.to(self.device))
        return F.normalize(self.model.visual_projection(states.pooler_output), dim=-1)


def _processing_of(name: str, size: int) -> Preprocessing:
    """Return what `preprocessor_config.json` says; CLIP's own values where there is none."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        logger.info("%s brings no image settings: CLIP's own at %d pixels", name, size)
        return Preprocessing(size, size)
    crop = settings.get("crop_size", size)
    edge = settings.get("size", size)
    return Preprocessing(
        shortest_edge=edge.get("shortest_edge", size) if isinstance(edge, dict) else int(edge),
        crop=crop.get("height", size) if isinstance(crop, dict) else int(crop),
        mean=tuple(settings.get("image_mean", Preprocessing.mean)),
        std=tuple(settings.get("image_std", Preprocessing.std)),
    )


def _config_hash(config: Any) -> str:
    """Return a hash of a model's settings, without those that change no vector."""
    settings = {k: v for k, v in config.to_dict().items() if k not in _SAYS_NO_NUMBER}
    return hashlib.blake2b(
        json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16
    ).hexdigest()


def _tokenizer_hash(tokenizer: Any) -> str:
    """Return a hash of all that turns texts into tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab())
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
