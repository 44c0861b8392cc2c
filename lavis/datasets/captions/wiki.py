"""Wikitext-103 for the fusion block: blocks of tokens, each with an image of one of its sentences.

Images are drawn by a generator and kept in an image store, which the task passes in. The sentence
is a function of seed, epoch and row number, so that an epoch's images can be drawn ahead.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.common.pretrained import load_tokenizer
from lavis.common.registry import datasets
from lavis.common.storage.inputs import Input
from lavis.common.text import random_sentence
from lavis.datasets.base import RecordDataset
from lavis.datasets.captions.config import WikiConfig
from lavis.datasets.captions.dataset import chosen_rows
from lavis.datasets.captions.token_blocks import find_corpus, token_blocks
from lavis.datasets.files.hub import hub_files
from lavis.datasets.files.records import RecordStore
from lavis.datasets.rows import Images, ImageSource, Row, row_random
from lavis.processors import load_processor

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_HUB = "Salesforce/wikitext"


@datasets.register("wiki")
class WikiDataset(RecordDataset):
    """Blocks of a corpus of lines; `targets["token_ids"]` holds a row's tokens.

    The row's text, and its field `picture_prompt`, is the sentence that is drawn: a uniform choice
    among those of the decoded block, special tokens left out; `random` where there is none. Rows
    are of equal length and have no padding. Images come from the store of `use_images`.
    """

    config_class: ClassVar[type[WikiConfig]] = WikiConfig
    config: WikiConfig

    def __init__(self, config: WikiConfig, split: str, *, name: str) -> None:
        self.config, self.name, self.split = config, name, split
        self.is_train = split.startswith("train")
        self.has_images = config.with_images
        self.tokenizer = load_tokenizer(config.tokenizer, f"datasets.{name}.tokenizer")
        self.files = self._find_files()
        self.blocks = token_blocks(
            self.files,
            self.tokenizer,
            config.block_size,
            text_key=config.text_key,
            cache_dir=config.cache_dir,
        )
        self._rows = chosen_rows(len(self.blocks), config)
        self.store = RecordStore([])  # blocks have no records
        node = config.processor("vis", split)
        self.vis_processor = load_processor(node["name"], node)
        self._images: ImageSource | None = None
        self._image_seed = 0
        self._last = self._style = None

    def _find_files(self) -> list[str]:
        config = self.config
        config.check_source(self.name, self.split)
        named = config.record_paths(self.split)
        if named:
            return [file for path in named for file in find_corpus(path, self.split)]
        if config.data_dir is not None:
            return find_corpus(os.path.expanduser(config.data_dir), self.split)
        split = "validation" if self.split.startswith("valid") else self.split
        corpus = f"wikitext-{config.wiki_num}-raw-v1"
        return hub_files(_HUB, corpus, split, section=self.name, local=config.LOCAL_FILES)

    def __len__(self) -> int:
        return len(self.blocks) if self._rows is None else len(self._rows)

    def use_images(self, store: ImageSource | None, *, seed: int) -> None:
        """Take images from a store from now on.

        Args:
            store: None for a data set whose requests are only listed.
            seed: of the images: that of the section `run.images`.
        """
        self._images, self._image_seed = store, seed

    def image_requests(self, epoch: int, seed: int) -> Iterator[tuple[str, int, int]]:
        """Yield each row's prompt, index and seed in an epoch, from 0; `seed` is the run's."""
        for index in range(len(self) if self.has_images else 0):
            yield self._request(self._sentence(index, row_random(seed, epoch, index)))

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        ids = self._block(index)
        prompt = self._sentence(index, rng or row_random(0, 0, index))
        fields = {"index": index, "picture_prompt": prompt}
        return Row(index, self._key(prompt), prompt, fields, targets={"token_ids": tuple(ids)})

    def _sentence(self, index: int, rng: random.Random) -> str:
        text = self.tokenizer.decode(self._block(index), skip_special_tokens=True)
        return random_sentence(text, rng)

    def _block(self, index: int) -> list[int]:
        return self.blocks[index if self._rows is None else int(self._rows[index])]

    def _request(self, prompt: str) -> tuple[str, int, int]:
        return prompt, 0, self._image_seed

    def _key(self, prompt: str) -> str:
        """Return the identity of the processed image."""
        stored = prompt
        if self._images is not None:
            stored = self._images.key(*self._request(prompt))
        text = f"{stored} {self.vis_processor.describe()}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def image(self, row: Row, rng: random.Random | None = None) -> Tensor:
        """Return `(3, S, S)`, or `(P, D)` where the generator makes features of the prompt.

        Raises:
            RecordError: the image is not in the store.
            ConfigError: there is no store, or no image processor.
        """
        import torch

        store = self._store()
        if store.makes_features:
            return torch.from_numpy(store.text_features([self._request(row.text)])[0])
        self.check_processor("{name: clip_image, image_size: 224}")
        return self.vis_processor(self.drawn_image(row), rng=rng, boxes=[])

    def drawn_image(self, row: Row) -> Image.Image:
        """Return the stored image of the row's sentence."""
        store = self._store()
        try:
            return store.image(store.key(*self._request(row.text)))
        except DataError as error:
            raise RecordError(f"missing image: {error}") from None

    def _store(self) -> ImageSource:
        if self._images is None:
            raise ConfigError(
                f"datasets.{self.name}: its images are drawn by a generator; configure "
                f"run.images, or set datasets.{self.name}.with_images=false"
            )
        return self._images

    def record(self, index: int) -> dict[str, Any]:
        """Return the block's tokens and text."""
        ids = self._block(index)
        return {"token_ids": ids, "text": self.tokenizer.decode(ids)}

    def source(self, index: int) -> dict[str, Any]:
        """Return the file of blocks and the block's number there."""
        number = index if self._rows is None else int(self._rows[index])
        return {"file": str(self.blocks.path), "row": number}

    def places(self) -> list[str]:
        """Return nothing: no row has a file of its own."""
        return []

    def inputs(self, index: int) -> list[Input]:
        """Return nothing: no row has a file of its own."""
        return []

    def fingerprint(self) -> dict[str, Any]:
        """Return what rows depend on; the name of the blocks' file covers all its sources."""
        return {
            "name": self.name,
            "split": self.split,
            "blocks": self.blocks.path.name,
            "vis_processor": self.vis_processor.describe(),
            "options": self.config.options(self.split),
            "pictures": self._images and self._images.fingerprint(),
        }

    def collate(
        self, rows: Sequence[Row], images: Images | None, image_index: Sequence[int]
    ) -> dict[str, Any]:
        """See `RecordDataset`; adds `token_ids`, a list of equally long lists."""
        samples = super().collate(rows, images, image_index)
        samples["token_ids"] = [list(row.targets["token_ids"]) for row in rows]
        return samples
