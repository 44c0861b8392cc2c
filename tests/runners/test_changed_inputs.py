"""Scores belong to what was read: files that changed are scored again, other jobs are refused."""

import dataclasses
import errno
import io
import json
import os
import shutil
import tarfile
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lavis.common.errors import ConfigError, RecordError
from lavis.common.registry import datasets as registered
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import DatasetConfig, LaionConfig, LckConfig, SplitSource
from lavis.datasets.files import images as image_files
from lavis.models.base import BaseModel
from lavis.tasks.report import scored_row

IMAGES = 6  # two records each, two of them to a unit
RESULT = "result/test_epochbest.json"


class Mean(nn.Module):
    """Scores an image by its mean, so that a result says which image was looked at."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    scoring_identity, scoring = BaseModel.scoring_identity, BaseModel.scoring

    def predict(self, samples):
        means = samples["image"].mean((1, 2, 3))[samples["image_index"]]
        return {"prediction": torch.stack([-means, means], -1)}


class Interrupt(Exception):
    pass


def write_image(path, value):
    """Write an image without compression: all of them have one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path, format="BMP")


def rewrite(path, write):
    """Change a file, and set its size and change time to what they were."""
    before = os.stat(path)
    write(path)
    assert os.stat(path).st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def lck_record(number, text="a b c"):
    return {
        "image": f"deep/{number // 2}.bmp",
        "index": f"r{number}",
        "region": [],
        "references": [],
        "question": text.split(),
        "answer": ["yes"],
        "rationale": ["because", "of", str(number)],
    }


@pytest.fixture
def corpus(tmp_path):
    """Records and images, some time ago."""
    folder = tmp_path / "corpus"
    for number in range(IMAGES):
        write_image(folder / "images" / "deep" / f"{number}.bmp", 10 * number)
    lines = [json.dumps(lck_record(number)) for number in range(2 * IMAGES)]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    time.sleep(0.02)  # a later change has another time stamp
    return folder


def open_lck(folder, root=None, source=None, **options):
    config = LckConfig(
        build_info={
            "annotations": {"test": {"storage": str(folder / "records.jsonl"), **(source or {})}},
            "images": {"storage": str(root or folder / "images")},
        },
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 8}},
        text_processor={"eval": {"name": "blip_unified_vqa"}},
        cache_dir=str(folder / "unpacked"),
        **options,
    )
    return build_dataset("unified_vqa_binary", config, "test")


def open_laion(storage, folder):
    config = LaionConfig(
        build_info={"annotations": {"test": {"storage": str(storage)}}},
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 8}},
        text_processor={"eval": {"name": "blip_unified_vqa"}},
        cache_dir=str(folder / "unpacked"),
    )
    return build_dataset("laion_sample_extracted", config, "test")


@pytest.fixture
def run(tiny, tmp_path):
    """Evaluate a data set into a folder; returns how many records were scored."""

    class Task(tiny.TinyTask):
        stop_at = None

        def predict(self, model, batch):
            if self.stop_at is not None and self.scored >= self.stop_at:
                raise Interrupt
            return super().predict(model, batch) if batch.rows else {}

        def rows(self, batch, outputs):
            rows = super().rows(batch, outputs) if batch.rows else list(batch.rejects)
            texts = {row.index: row.text for row in batch.rows}
            return [(n, {**row, "text": texts.get(n)}) for n, row in rows]

    def start(dataset, folder=tmp_path / "out", stop_at=None, **options):
        task = Task()
        task.stop_at = stop_at
        runner = tiny.make_runner(
            folder, task, Mean(), {"data": {"test": dataset}}, test_splits=["test"], **options
        )
        runner.evaluate()
        return task.scored

    return start


def same_as_fresh(run, dataset, tmp_path):
    """Whether the results are those of a run that started now."""
    fresh = tmp_path / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    run(dataset, fresh)
    return (tmp_path / "out" / RESULT).read_bytes() == (fresh / RESULT).read_bytes()


def files_of(folder):
    """Content and time of every file but the log of what happened."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "run.log":
            found[str(path.relative_to(folder))] = (path.read_bytes(), path.stat().st_mtime_ns)
    return found


@pytest.mark.parametrize("stop_at", [None, 8])
def test_another_image_root_is_refused_and_nothing_is_written(run, corpus, tmp_path, stop_at):
    try:
        run(open_lck(corpus), stop_at=stop_at)
    except Interrupt:
        assert stop_at
    other = tmp_path / "other"
    for number in range(IMAGES):
        write_image(other / "deep" / f"{number}.bmp", 200)
        shutil.copystat(corpus / "images/deep" / f"{number}.bmp", other / f"deep/{number}.bmp")
    before = files_of(tmp_path / "out")
    with pytest.raises(ConfigError, match=rf"files in .*images; this run reads .*{other.name}"):
        run(open_lck(corpus, other))
    assert files_of(tmp_path / "out") == before


def test_another_root_is_seen_where_images_lay_beside_their_records(run, corpus, tmp_path):
    for number in range(IMAGES):
        write_image(corpus / "deep" / f"{number}.bmp", 10 * number)
    run(open_lck(corpus, corpus))
    other = tmp_path / "other"
    for number in range(IMAGES):
        write_image(other / "deep" / f"{number}.bmp", 200)
    before = files_of(tmp_path / "out")
    with pytest.raises(ConfigError, match=rf"this run reads .*{other.name}"):
        run(open_lck(corpus, other))
    assert files_of(tmp_path / "out") == before


def test_a_report_shows_a_scored_row_whose_image_is_gone(corpus):
    dataset = open_lck(corpus)
    (corpus / "images/deep/0.bmp").unlink()
    with pytest.raises(RecordError, match="missing image"):
        dataset.row(0)
    assert scored_row(dataset, 0).text.startswith("a b c")


def test_a_moved_copy_of_the_data_keeps_all_scores(run, corpus, tmp_path):
    with pytest.raises(Interrupt):
        run(open_lck(corpus), stop_at=8)
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    shutil.rmtree(corpus)
    os.utime(moved / "records.jsonl", (0, 0))
    assert run(open_lck(moved)) == 8  # one unit of four was journaled
    assert same_as_fresh(run, open_lck(moved), tmp_path)


@pytest.mark.parametrize("stop_at", [None, 8])
def test_an_edited_image_is_scored_again_with_its_unit_only(run, corpus, tmp_path, stop_at, caplog):
    try:
        run(open_lck(corpus), stop_at=stop_at)
    except Interrupt:
        assert stop_at
    rewrite(corpus / "images/deep/0.bmp", lambda path: write_image(path, 250))
    with caplog.at_level("WARNING", logger="lavis"):
        scored = run(open_lck(corpus))
    assert scored == (4 if stop_at is None else 12)
    assert "1 units (4 records) are scored again: files they are made from changed" in caplog.text
    assert "images/deep/0.bmp" in caplog.text or "deep/0.bmp" in caplog.text
    assert run(open_lck(corpus)) == 0  # once
    assert same_as_fresh(run, open_lck(corpus), tmp_path)


def test_a_start_killed_while_it_scores_again_leaves_the_rest_to_the_next(run, corpus, tmp_path):
    run(open_lck(corpus))
    for number in (0, 3, 5):
        rewrite(corpus / f"images/deep/{number}.bmp", lambda path: write_image(path, 250))
    with pytest.raises(Interrupt):
        run(open_lck(corpus), stop_at=8)
    rewrite(corpus / "images/deep/5.bmp", lambda path: write_image(path, 240))
    assert 4 <= run(open_lck(corpus)) <= 8
    assert same_as_fresh(run, open_lck(corpus), tmp_path)


def test_missing_and_broken_images_are_scored_once_they_are_mended(run, corpus, tmp_path):
    missing, broken = (corpus / f"images/deep/{number}.bmp" for number in (1, 4))
    missing.unlink()
    broken.write_bytes(b"no image")
    assert run(open_lck(corpus)) == 8
    rows = json.loads((tmp_path / "out" / RESULT).read_text())
    assert sorted(row["reject"].split(":")[0] for row in rows if "reject" in row) == [
        *["broken image"] * 2,
        *["missing image"] * 2,
    ]
    assert run(open_lck(corpus)) == 0  # nothing has changed yet
    for path in (missing, broken):
        write_image(path, 77)
    assert 4 <= run(open_lck(corpus)) <= 8
    rows = json.loads((tmp_path / "out" / RESULT).read_text())
    assert len(rows) == 12 and not any("reject" in row for row in rows)
    assert same_as_fresh(run, open_lck(corpus), tmp_path)


def test_an_image_that_vanished_is_set_aside(run, corpus, tmp_path):
    run(open_lck(corpus))
    (corpus / "images/deep/2.bmp").unlink()
    run(open_lck(corpus))
    assert same_as_fresh(run, open_lck(corpus), tmp_path)


def test_what_a_disk_refused_is_tried_again_though_no_file_changed(
    run, corpus, tmp_path, monkeypatch, caplog
):
    read = image_files.Image.open

    def failing(path, **options):
        if str(path).endswith("3.bmp"):
            raise OSError(errno.EIO, "Input/output error")
        return read(path, **options)

    monkeypatch.setattr(image_files.Image, "open", failing)
    assert run(open_lck(corpus)) == 10
    monkeypatch.undo()
    with caplog.at_level("WARNING", logger="lavis"):
        assert run(open_lck(corpus)) == 4
    assert "could not be read then" in caplog.text
    assert run(open_lck(corpus)) == 0
    assert same_as_fresh(run, open_lck(corpus), tmp_path)


def write_sidecar(path, caption):
    path.write_text(json.dumps({"caption": caption, "key": path.stem}))


@pytest.fixture
def laion(tmp_path):
    folder = tmp_path / "laion" / "00000"
    for number in range(IMAGES):
        write_image(folder / f"{number}.jpg", 10 * number)
        write_sidecar(folder / f"{number}.json", f"caption {number}")
    time.sleep(0.02)
    return folder


def test_a_rewritten_sidecar_is_read_again(run, laion, tmp_path):
    run(open_laion(laion, tmp_path))
    rewrite(laion / "2.json", lambda path: write_sidecar(path, "kaption 2"))
    assert run(open_laion(laion, tmp_path)) == 4
    rows = json.loads((tmp_path / "out" / RESULT).read_text())
    assert "kaption 2" in rows[2]["text"]
    assert same_as_fresh(run, open_laion(laion, tmp_path), tmp_path)


def test_another_folder_of_equal_names_is_refused(run, laion, tmp_path):
    run(open_laion(laion, tmp_path))
    other = tmp_path / "other" / "00000"
    shutil.copytree(laion, other)
    assert run(open_laion(other, tmp_path)) == 0  # a copy
    rewrite(other / "2.json", lambda path: write_sidecar(path, "kaption 2"))
    with pytest.raises(ConfigError, match=r"files in .*laion; this run reads .*other"):
        run(open_laion(other, tmp_path))


def write_tar(path, folder, changed=None):
    with tarfile.open(path, "w") as archive:
        for number in range(IMAGES):
            for ending in ("jpg", "json"):
                content = (folder / f"{number}.{ending}").read_bytes()
                if (number, ending) == changed:
                    content = content.replace(b"caption 3", b"kaption 3")
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def test_a_changed_member_of_a_shard_is_read_again_and_no_other(run, laion, tmp_path):
    shard = tmp_path / "0.tar"
    write_tar(shard, laion)
    time.sleep(0.02)
    run(open_laion(shard, tmp_path))
    rewrite(shard, lambda path: write_tar(path, laion, (3, "json")))
    assert run(open_laion(shard, tmp_path)) == 4
    assert same_as_fresh(run, open_laion(shard, tmp_path), tmp_path)


def test_records_edited_to_equal_size_and_time_are_another_job(run, corpus, tmp_path):
    with pytest.raises(Interrupt):
        run(open_lck(corpus), stop_at=8)
    text = (corpus / "records.jsonl").read_text()
    assert '"yes"' in text
    rewrite(corpus / "records.jsonl", lambda p: p.write_text(text.replace('"yes"', '"noo"')))
    with pytest.raises(ConfigError, match=r"data\.files\.0\.content is .* there and .* here"):
        run(open_lck(corpus))


def test_another_region_mapping_is_another_job(run, corpus, tmp_path):
    mapping = corpus / "regions.jsonl"
    mapping.write_text('{"image": "deep/0.bmp", "region_locations": []}\n')
    source = {"region_mapping": str(mapping)}
    run(open_lck(corpus, source=source))
    rewrite(mapping, lambda p: p.write_text(p.read_text().replace("0.bmp", "1.bmp")))
    with pytest.raises(ConfigError, match=r"region_mapping\.content is .* there"):
        run(open_lck(corpus, source=source))


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_pixels", 10), ("follow_symlinks", True), ("max_regions", 2), ("palette", "distinct")],
)
def test_another_option_of_the_data_is_refused_by_name(run, corpus, tmp_path, option, value):
    run(open_lck(corpus))
    before = files_of(tmp_path / "out")
    with pytest.raises(ConfigError, match=rf"data\.options\.{option} is .* there and .* here"):
        run(open_lck(corpus, **{option: value}))
    assert files_of(tmp_path / "out") == before


def test_a_lost_plan_that_comes_out_otherwise_is_refused(run, laion, tmp_path):
    run(open_laion(laion, tmp_path))
    (tmp_path / "out/journal/test_epochbest.plan.npz").unlink()
    write_sidecar(laion / "5.json", "a much longer caption than all of the others " * 3)
    with pytest.raises(ConfigError, match=r"plan is .* there and .* here"):
        run(open_laion(laion, tmp_path))


def all_configs():
    import importlib

    for name in registered.list():
        cls = registered.get(name)
        if issubclass(getattr(cls, "config_class", object), DatasetConfig):
            importlib.import_module(cls.__module__)
            yield cls.config_class


# Fields on which no row depends, or that name what is identified by what it holds.
UNREAD = {
    *("type", "data_type", "build_info", "vis_processor", "text_processor", "cache_dir"),
    *("data_dir", "tokenizer"),
}
FORMER = {"with_images": "with_pictures"}


@pytest.mark.parametrize("config", sorted(set(all_configs()), key=lambda c: c.__name__))
def test_every_option_of_a_data_set_is_part_of_its_identity(config):
    """A new option is, unless it is listed here as well as in its class."""
    names = {one.name for one in dataclasses.fields(config)}
    assert names - config.UNREAD >= {"max_pixels", "follow_symlinks"}
    assert names & config.UNREAD <= UNREAD
    values = {name: f"value of {name}" for name in names}
    section = object.__new__(config)
    for name, value in values.items():
        object.__setattr__(section, name, value)
    source = SplitSource(storage="x")
    object.__setattr__(section, "source", lambda split: source)
    options = section.options("test")  # by the names that journals were begun with
    for name in names - UNREAD:
        assert options[FORMER.get(name, name)] == values[name]


def test_every_option_of_a_split_but_its_files_is_part_of_the_identity(corpus):
    options = open_lck(corpus).fingerprint()["options"]
    names = {one.name for one in dataclasses.fields(SplitSource)}
    assert names - set(options) == {"storage", "vis_root"}
    assert options["region_mapping"] is None


def test_images_of_one_name_size_and_time_have_keys_of_their_own(corpus):
    first = open_lck(corpus).row(0).image_key
    assert open_lck(corpus).row(0).image_key == first
    dataset = open_lck(corpus)
    assert dataset.row(0).image_key == first
    rewrite(corpus / "images/deep/0.bmp", lambda path: write_image(path, 250))
    assert dataset.row(0).image_key != first  # nor does a data set that is open remember it
    assert np.isclose(float(dataset.image(dataset.row(0)).mean()), 250 / 255 * 1, atol=10)


def test_features_are_kept_only_of_the_image_that_their_key_names(corpus):
    from lavis.runners.features import _Chunks, _PlainView

    dataset = open_lck(corpus)
    keys = [(dataset.row(index).image_key, index) for index in (0, 2)]
    chunks = _Chunks(_PlainView(dataset), 0)
    assert chunks[keys][0] == [key for key, _ in keys]
    rewrite(corpus / "images/deep/0.bmp", lambda path: write_image(path, 250))
    assert chunks[keys][0] == [keys[1][0]]  # the first is another image than it was listed as
    read = dataset.image

    def changes_meanwhile(row):
        image = read(row)
        rewrite(corpus / "images/deep/1.bmp", lambda path: write_image(path, 251))
        return image

    dataset.image = changes_meanwhile
    assert chunks[keys[1:]][0] == []
