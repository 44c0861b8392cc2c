"""Images of a folder: found by name, hash or manifest; what a folder cannot give is an error."""

import json

import pytest
from painted import paint, shades
from PIL import Image

from lavis.common.errors import DataError
from lavis.common.storage.cache import Cache
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.build import build_generator
from lavis.generators.folder import prompt_hash, prompt_name
from lavis.generators.store import ImageStore


def test_files_are_found_by_the_prompts_name_or_hash(tmp_path):
    paint(tmp_path, "a_red_cat-0.png", 10)
    paint(tmp_path, "a_red_cat-10.png", 30)
    paint(tmp_path, "a_red_cat-2.png", 20)
    paint(tmp_path, f"{prompt_hash('A dog!')}.png", 40)
    paint(tmp_path, "a_hen/b.png", 60)
    paint(tmp_path, "a_hen/a.png", 50)
    generator = build_generator("folder", {"root": str(tmp_path)})
    prompts = ["A red cat.", "A red cat.", "A red cat.", "A dog!", "a hen", "a hen"]
    assert shades(generator.generate(image_requests(prompts))) == [10, 20, 30, 40, 50, 60]
    assert prompt_name("A  red-cat, no. 3!") == "a_red_cat_no_3"


def test_a_manifest_names_the_files_of_a_prompt(tmp_path):
    paint(tmp_path, "x/1.png", 1)
    paint(tmp_path, "x/2.png", 2)
    lines = [{"prompt": "a cat", "images": ["x/2.png", "x/1.png"]}, {"prompt": "b", "image": "x"}]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    options = {"root": str(tmp_path), "manifest": str(manifest)}
    generator = build_generator("folder", options)
    assert shades(generator.generate(image_requests(["a cat", "a cat"]))) == [2, 1]
    with pytest.raises(DataError, match="2 images of the prompt 'a cat', number 3 is wanted"):
        generator.generate([ImageRequest("a cat", 2)])
    repeating = build_generator("folder", {**options, "missing": "repeat"})
    assert shades(repeating.generate([ImageRequest("a cat", 2)])) == [2]
    with pytest.raises(DataError, match=r"0 images of the prompt 'c'.*add it to .*manifest"):
        repeating.generate([ImageRequest("c")])
    manifest.write_text('{"prompt": 3}')
    with pytest.raises(DataError, match=r'line 1: write \{"prompt"'):
        build_generator("folder", options)


def test_what_a_folder_cannot_give_is_said(tmp_path):
    with pytest.raises(DataError, match="folder generator, root: no such folder"):
        build_generator("folder", {"root": str(tmp_path / "none")})
    outside = tmp_path / "outside.png"
    Image.new("RGB", (2, 2)).save(outside)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(outside)
    (root / "broken.png").write_bytes(b"\x89PNG no")
    generator = build_generator("folder", {"root": str(root)})
    with pytest.raises(DataError, match=r"link\.png: leads out of"):
        generator.generate([ImageRequest("link")])
    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image"):
        generator.generate([ImageRequest("broken")])
    with pytest.raises(DataError, match=rf"add {prompt_hash('a cow')}-0\.png"):
        generator.generate([ImageRequest("a cow")])


def test_a_replaced_file_is_another_image(tmp_path):
    paint(tmp_path, "cat.png", 1)
    store = ImageStore(
        Cache(tmp_path / "cache"), build_generator("folder", {"root": str(tmp_path)})
    )
    assert shades(store.images([ImageRequest("cat", 0, 1)])) == [1]
    Image.new("RGB", (9, 9), (7, 7, 7)).save(tmp_path / "cat.png")
    store = ImageStore(store.cache, build_generator("folder", {"root": str(tmp_path)}))
    assert shades(store.images([ImageRequest("cat", 0, 2)])) == [7]
