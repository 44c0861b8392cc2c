"""Pictures and boxes of VCR, Visual Genome, COCO, LCK and own files, as lines of one form.

A line is `{"image", "regions": [{"name", "boxes": [[x1, y1, x2, y2]], "obj_guess", ...}]}`, one a
picture, with `keep_ids` where the numbers of regions mean something elsewhere. Nothing is checked
here but the form; a box that has none becomes `{"name", "reject": reason}`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import DataError, RecordError
from lavis.datasets.formats import PICTURE_SUFFIXES, open_file
from lavis.datasets.lck_record import index_entries, read_references
from lavis.datasets.records import JsonLinesFile
from lavis.datasets.region_index import read_list
from lavis.datasets.scenes_config import ScenesConfig

Line = dict[str, Any]
_KEPT = ("concepts", "captions", "narratives", "dynamic")
_VG_FOLDERS = ("VG_100K", "VG_100K_2", "")


def picture_lines(config: ScenesConfig) -> Iterator[Line]:
    """Yield a line for each picture, in the order of the source.

    Raises:
        DataError: the source has another form.
    """
    count = 0
    for line in _lines(config):
        yield line
        count += 1
        if count == config.limit:
            return
    if not count:
        raise DataError(f"{config.regions or config.root}: no pictures")


def _lines(config: ScenesConfig) -> Iterator[Line]:
    root = os.path.expanduser(config.root)
    if config.regions is None:
        return ({"image": name, "regions": []} for name in _files(root, root, PICTURE_SUFFIXES))
    path = os.path.expanduser(config.regions)
    if os.path.isdir(path):
        if config.format not in ("auto", "vcr"):
            raise DataError(f"{path}: a file was expected for format '{config.format}'")
        return _vcr_folder(path, root)
    name = path.lower()
    if config.format == "coco" or (config.format == "auto" and _begins_with(path, b"{", ".json")):
        return _coco(path)
    if config.format == "vg" or (config.format == "auto" and name.endswith((".json", ".zip"))):
        return _visual_genome(path, root)
    return _json_lines(path, root, config)


def _begins_with(path: str, mark: bytes, ending: str) -> bool:
    if not path.lower().endswith(ending):
        return False
    with open(path, "rb") as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark)


def _files(folder: str, root: str, endings: Sequence[str]) -> Iterator[str]:
    """Yield the names of files below a folder relative to `root`, sorted folder by folder."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            yield from _files(entry.path, root, endings)
        elif entry.name.lower().endswith(tuple(endings)):
            yield os.path.relpath(entry.path, root).replace(os.sep, "/")


def _entry(place: int, box: Any, name: object, **more: Any) -> dict[str, Any]:
    if not isinstance(box, (list, tuple)) or len(box) < 4:
        return {"name": str(place), "reject": f"has {json.dumps(box)[:60]}, expected 4 numbers"}
    entry = {"name": str(place), "boxes": [list(box)], "obj_guess": str(name or "")}
    return entry | {key: value for key, value in more.items() if value not in (None, "", [])}


def _from_xywh(box: Any) -> Any:
    """Return corners of x, y, width, height; anything else as it is, for the check to name."""
    try:
        x, y, width, height = box
        return [x, y, x + width, y + height]
    except (TypeError, ValueError):
        return box if not isinstance(box, (list, tuple)) else list(box)[:3]


# --- VCR


def _vcr_folder(folder: str, root: str) -> Iterator[Line]:
    for name in _files(folder, root, (".json",)):
        yield _vcr_line(f"{name[:-5]}.jpg", os.path.join(root, name))


def _vcr_line(image: str, metadata: str) -> Line:
    """Return a picture's line; boxes are x1, y1, x2, y2, score, and ids are their places."""
    try:
        content = json.loads(Path(metadata).read_text(encoding="utf-8"))
        boxes, names = content["boxes"], content["names"]
        segments = content.get("segms") or [None] * len(boxes)
        regions = [
            _entry(place, box, name, segms=segment)
            for place, (box, name, segment) in enumerate(zip(boxes, names, segments, strict=True))
        ]
    except OSError:
        return {"image": image, "reject": f"missing metadata: {os.path.basename(metadata)}"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"image": image, "reject": f"malformed metadata: {str(error)[:80]}"}
    return {"image": image, "regions": regions, "keep_ids": True}


# --- Visual Genome


def _visual_genome(path: str, root: str) -> Iterator[Line]:
    """Boxes are x, y and `w`, `h` (objects, attributes) or `width`, `height` (descriptions)."""
    for item in read_list(path):
        if not isinstance(item, dict):
            raise DataError(f"{path}: objects with 'objects', 'attributes' or 'regions' expected")
        kind = next((k for k in ("objects", "attributes", "regions") if k in item), None)
        if kind is None:
            raise DataError(
                f"{path}: no 'objects', 'attributes' or 'regions' in its items, so it is none of "
                "Visual Genome's files; set pictures.format"
            )
        regions = [_vg_entry(place, region) for place, region in enumerate(item[kind])]
        yield {"image": _vg_image(item, root), "regions": regions}


def _vg_entry(place: int, region: Mapping[str, Any]) -> dict[str, Any]:
    width, height = region.get("w", region.get("width")), region.get("h", region.get("height"))
    box = _from_xywh([region.get("x"), region.get("y"), width, height])
    names = region.get("names") or [""]
    attributes = region.get("attributes")
    return _entry(place, box, names[0], caption=region.get("phrase"), attributes=attributes)


def _vg_image(item: Mapping[str, Any], root: str) -> str:
    url = item.get("image_url")
    if isinstance(url, str):
        name = "/".join(url.split("/")[-2:])
        if os.path.exists(os.path.join(root, name)):
            return name
    number = item.get("image_id", item.get("id"))
    for folder in _VG_FOLDERS:
        name = f"{folder}/{number}.jpg".lstrip("/")
        if os.path.exists(os.path.join(root, name)):
            return name
    return f"{number}.jpg"


# --- COCO


def _coco(path: str) -> Iterator[Line]:
    """`bbox` is x, y, width, height; annotations of crowds are left out. Read as a whole, once."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            content = json.load(file)
            categories = {item["id"]: item["name"] for item in content.get("categories", [])}
            pictures = [(item["id"], item["file_name"]) for item in content["images"]]
            annotations = content["annotations"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not COCO instances ({error}); 'images' and 'annotations' were expected"
            ) from None
    by_picture: dict[Any, list[Any]] = {}
    for item in annotations:
        if not item.get("iscrowd"):
            named = (item.get("bbox"), categories.get(item.get("category_id"), ""))
            by_picture.setdefault(item.get("image_id"), []).append(named)
    del content, annotations
    for number, name in pictures:
        found = by_picture.pop(number, [])
        regions = [_entry(p, _from_xywh(box), label) for p, (box, label) in enumerate(found)]
        yield {"image": name, "regions": regions}


# --- lines of JSON


def _json_lines(path: str, root: str, config: ScenesConfig) -> Iterator[Line]:
    for file in open_file(path):
        if not isinstance(file, JsonLinesFile):
            raise DataError(f"{path}: lines of JSON were expected")
        for rows in _by_picture(file):
            records = [file.read(int(row)) for row in rows]
            yield _merged(records, root, config)


def _by_picture(file: JsonLinesFile) -> Iterator[np.ndarray]:
    """Yield the rows of each picture, pictures by their first row; 16 bytes a row stay."""
    hashes = np.zeros(len(file), dtype=np.uint64)
    good = np.zeros(len(file), dtype=bool)
    for row in range(len(file)):
        try:
            record = file.read(row)
        except RecordError as error:
            raise DataError(f"{file.path}, line {file.place(row)['line']}: {error}") from None
        name = record.get("image", record.get("img_fn"))
        if not isinstance(name, str):
            raise DataError(f"{file.path}, line {file.place(row)['line']}: no 'image' in it")
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        hashes[row], good[row] = int.from_bytes(digest, "little"), True
    rows = np.flatnonzero(good)
    order = rows[np.argsort(hashes[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order][:1] + np.uint64(1)))
    ends = np.append(starts[1:], len(order))
    for group in np.argsort(order[starts], kind="stable"):
        yield order[starts[group] : ends[group]]


def _merged(records: Sequence[Mapping[str, Any]], root: str, config: ScenesConfig) -> Line:
    """Return one picture's line from its records."""
    last = records[-1]
    readers: list[tuple[str, Callable[[], Line]]] = [
        ("metadata_fn", lambda: _vcr_annotation(last, root)),
        ("region_locations", lambda: _mapping(last)),
        ("references", lambda: _references(records)),
        ("references_in_input", lambda: _references(records)),
    ]
    for key, read in readers:
        if key in last:
            try:
                return read()
            except RecordError as error:
                return {"image": last.get("image"), "reject": error.reason}
    regions: list[dict[str, Any]] = []
    for record in records:
        boxes, names = record.get("boxes") or [], record.get("names") or []
        if not isinstance(boxes, list) or not isinstance(names, list):
            return {"image": last["image"], "reject": "wrong type: boxes and names must be lists"}
        for place, box in enumerate(boxes):
            corners = _from_xywh(box) if config.box_format == "xywh" else box
            name = names[place] if place < len(names) else ""
            regions.append(_entry(len(regions), corners, name))
    return {"image": last["image"], "regions": regions, "keep_ids": True}


def _vcr_annotation(record: Mapping[str, Any], root: str) -> Line:
    nested = os.path.isdir(os.path.join(root, "vcr1images"))
    prefix = "vcr1images/" if nested else ""
    image, metadata = record["img_fn"], str(record["metadata_fn"])
    return _vcr_line(f"{prefix}{image}", os.path.join(root, f"{prefix}{metadata}"))


def _mapping(record: Mapping[str, Any]) -> Line:
    entries = index_entries(record["region_locations"], "region_locations", named=False)
    kept = {key: record[key] for key in _KEPT if key in record}
    return {"image": record["image"], "regions": _named(entries), "keep_ids": True, **kept}


def _references(records: Sequence[Mapping[str, Any]]) -> Line:
    entries: dict[int, Any] = {}
    for record in records:  # each names the regions of its own prompt
        for number, entry in read_references(record).items():
            entries.setdefault(number, entry)
    return {"image": records[-1]["image"], "regions": _named(entries), "keep_ids": True}


def _named(entries: Mapping[int, Any]) -> list[dict[str, Any]]:
    regions = []
    for number in sorted(entries):
        entry = entries[number]
        if not isinstance(entry, Mapping):
            regions.append({"name": str(number), "reject": "is no object"})
            continue
        kept = {key: value for key, value in entry.items() if value is not None}
        regions.append({**kept, "name": str(number)})
    return regions
