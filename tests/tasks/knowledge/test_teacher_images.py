"""A teacher that sees: what arrives at a server, what a changed image costs, caps, and the page."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from generation_run import GOOD, OTHER, image, items, lines, run
from PIL import Image
from seen_run import BOXES, REGIONS, number_of, picture, same, shown

from lavis.datasets.files.formats import open_records
from lavis.llm.config import read_llm
from lavis.processors.region import draw_regions
from lavis.processors.views import crop_window, mark_regions
from lavis.tasks.knowledge.config import GenerateConfig
from lavis.tasks.knowledge.estimate import estimate
from lavis.tasks.knowledge.generation import KnowledgeGeneration

ROOT = Path(__file__).resolve().parents[3]


def test_the_server_gets_the_drawn_image_its_crops_and_the_notes(serve, seen):
    server = serve(lambda body, n: items(GOOD))
    assert run(seen(server, images=1, sees=["text", "image", "crops"])) == 0
    (body,) = server.bodies
    images, text = shown(body)
    drawn = draw_regions(picture(0), REGIONS, palette="distinct", width=2)
    assert len(images) == 3 and same(images[0], drawn)
    for crop, region in zip(images[1:], REGIONS, strict=True):
        assert same(crop, drawn.crop(crop_window(region.box, (100, 100))))
    assert '- [0]: "dog", "a brown dog", at the top left, the box outlined in green, ' in text
    assert "light blue, shown larger in image 3\n" in text and "image 0: a man and a dog" in text
    system = body["messages"][0]["content"]
    assert "You cannot see" not in system and "You see the picture itself" in system
    assert "You also read notes" in system and "never speak of them" in system


def test_a_record_of_an_image_and_boxes_is_enough(serve, seen, tmp_path):
    record = {"image": "a_000.png", "region_locations": BOXES}
    server = serve(lambda body, n: items(GOOD))
    path = seen(server, images=1, records=[record], sees=["image"], shows="marks")
    assert run(path) == 0
    images, text = shown(server.bodies[0])
    assert len(images) == 1 and same(images[0], mark_regions(picture(0), REGIONS))
    assert text.startswith("Regions:\n- [0]: the region marked 0\n- [1]: the region marked 1\n")
    assert "notes" not in server.bodies[0]["messages"][0]["content"].lower()
    (line,) = lines(tmp_path / "out/corpus.jsonl")
    assert line["region"] == [1, 0] and line["question"][:2] == ["Why", "is"]
    assert line["references"][1]["boxes"] == [[50, 20, 90, 70]]


def test_coordinates_and_prompts_about_no_region(serve, seen):
    server = serve(lambda body, n: items(GOOD))
    prompts = [{"source": "a"}, {"source": "b", "style": "descriptions"},
               {"source": "c", "regions": "none"}]  # fmt: skip
    run(seen(server, images=1, prompts=prompts, shows="coordinates", convention="qwen3_vl"))
    by_ids, by_names, whole = (
        next(one for one in map(shown, server.bodies) if words in one[1])
        for words in ("a region only by its number", "words in quotation marks", "as a whole")
    )
    assert all(same(images[0], picture(0)) for images, _ in (by_ids, by_names, whole))
    assert '{"bbox_2d": [500, 200, 900, 700]}' in by_ids[1]
    assert '- "the brown dog": "dog"' in by_names[1] and "bbox_2d" in by_names[1]
    assert "bbox_2d" not in whole[1] and "Ask about the picture as a whole" in whole[1]


def test_crops_alone(serve, seen):
    server = serve(lambda body, n: items(GOOD))
    run(seen(server, images=1, sees=["crops"], shows="plain"))
    images, text = shown(server.bodies[0])
    assert [one.size for one in images] == [
        picture(0).crop(crop_window(region.box, (100, 100))).size for region in REGIONS
    ]
    assert "- [1]: in image 2\n" in text
    assert "You do not see the whole picture" in server.bodies[0]["messages"][0]["content"]


def test_jpeg_is_near_and_large_images_are_made_smaller(serve, seen):
    server = serve(lambda body, n: items(GOOD))
    run(seen(server, images=1, image_format="jpeg", max_pixels=2500, shows="plain"))
    (small,), _ = shown(server.bodies[0])
    assert small.size == (50, 50)
    expected = np.array(picture(0).resize((50, 50), Image.Resampling.BICUBIC), dtype=float)
    assert abs(np.array(small, dtype=float) - expected).mean() < 3
    url = server.bodies[0]["messages"][1]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")


def test_a_broken_image_is_its_own_reject_and_is_asked_once_it_is_mended(serve, seen, tmp_path):
    server = serve(lambda body, n: items(GOOD))
    path = seen(server)
    (tmp_path / "images/a_001.png").write_bytes(b"no image")
    (tmp_path / "images/a_002.png").unlink()
    assert run(path) == 0
    rejects = lines(tmp_path / "out/rejects.jsonl")
    assert [(one["line"] - 1, one["kind"]) for one in rejects] == [(1, "data"), (2, "data")]
    assert rejects[0]["reason"].startswith("broken image: a_001.png")
    assert rejects[1]["reason"] == "missing image: a_002.png"
    assert sorted(map(number_of, server.bodies)) == [0, 3]
    assert run(path) == 0 and len(server.bodies) == 2  # nothing has changed
    picture(1).save(tmp_path / "images/a_001.png")
    assert run(path) == 0
    assert number_of(server.bodies[-1]) == 1 and len(server.bodies) == 3
    assert [one["image"] for one in lines(tmp_path / "out/corpus.jsonl")] == [
        "a_000.png", "a_001.png", "a_003.png",
    ]  # fmt: skip


def test_a_changed_image_makes_its_records_again_and_only_those(serve, seen, tmp_path):
    server = serve(lambda body, n: items(GOOD))
    path = seen(server)
    assert run(path) == 0 and len(server.bodies) == 4
    changed = picture(2)
    changed.paste((1, 2, 3), (30, 80, 40, 90))
    changed.save(tmp_path / "images/a_002.png")
    os.utime(tmp_path / "images/a_000.png")  # touched, its bytes are the same
    server.answer = lambda body, n: items(OTHER)
    assert run(path, "--options", "llm.caps.max_requests=4") == 1  # old records are gone by then
    assert [one["image"] for one in lines(tmp_path / "out/corpus.jsonl")] == [
        "a_000.png", "a_001.png", "a_003.png",
    ]  # fmt: skip
    assert run(path) == 0 and number_of(server.bodies[-1]) == 2 and len(server.bodies) == 5
    corpus = lines(tmp_path / "out/corpus.jsonl")
    assert corpus[2]["question"][:2] == ["What", "will"] and corpus[1]["question"][0] == "Why"
    (tmp_path / "images/a_002.png").write_bytes(b"broken now")
    assert run(path) == 0
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 3
    assert lines(tmp_path / "out/rejects.jsonl")[0]["reason"].startswith("broken image: a_002.png")
    assert run(path) == 0 and len(server.bodies) == 5
    changed.save(tmp_path / "images/a_002.png")  # what its records were made of
    assert run(path) == 0 and len(server.bodies) == 5
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 4


def test_another_folder_with_other_images_is_refused_and_a_wrong_one_can_be_mended(
    serve, seen, tmp_path, capsys
):
    server = serve(lambda body, n: items(GOOD))
    (tmp_path / "empty").mkdir()
    path = seen(server, images=2)
    assert run(path, "--options", f"run.image_root={tmp_path / 'empty'}") == 1
    assert not server.bodies
    assert run(path) == 0 and len(server.bodies) == 2
    (tmp_path / "images").rename(tmp_path / "moved")  # the same images
    again = ("--options", f"run.image_root={tmp_path / 'moved'}")
    assert run(path, *again) == 0 and len(server.bodies) == 2
    other = tmp_path / "other"
    other.mkdir()
    for number in range(2):
        picture(7).save(other / f"a_{number:03d}.png")
    assert run(path, "--options", f"run.image_root={other}") == 2
    assert "these records are of files in" in capsys.readouterr().err


def test_an_image_that_goes_while_its_reply_is_mended_is_left(serve, seen, tmp_path):
    def answer(body, n):
        (tmp_path / "images/a_000.png").unlink(missing_ok=True)
        return "no JSON"

    server = serve(answer)
    path = seen(server, images=1)
    assert run(path) == 1
    (reject,) = lines(tmp_path / "out/rejects.jsonl")
    assert reject["left"] and reject["reason"] == "missing image: a_000.png"
    assert reject["first_reason"].startswith("malformed reply")


def test_a_killed_run_pays_nothing_twice(serve, seen, settings, tmp_path):
    process, killed = None, []

    def answer(body, n):
        if not killed and server.asked.total() == 6:
            killed.append(True)
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        return items(GOOD, OTHER)

    server = serve(answer)
    path = seen(server, images=12, llm=settings(server, concurrency=2))
    command = [sys.executable, str(ROOT / "scripts/generate_qar.py"), "--cfg-path", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert run(path) == 0
    sent = sorted(map(number_of, server.bodies))
    assert set(sent) == set(range(12)) and 1 <= len(sent) - 12 <= 2  # those on their way
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["complete"] and summary["records"] == 24


def seeing(settings, server, **more):
    """Return settings of a server whose images are billed as gpt-4o's."""
    rule = {"rule": "openai_tiles", "model": "gpt-4o"}
    return settings(server, image_token_rule=rule, concurrency=1, **more)


def test_a_dry_run_counts_images_by_the_providers_rule(serve, seen, settings, tmp_path):
    server = serve()
    llm = seeing(settings, server, prices={"tiny": {"input": 10.0, "output": 0.0}})
    path = seen(server, images=4, llm=llm, sees=["image", "crops"])
    config = json.loads(path.read_text())
    generation = KnowledgeGeneration(
        GenerateConfig(**config["generate"]),
        open_records(config["generate"]["records"]),
        config["run"]["image_root"],
    )
    report = estimate(generation, read_llm(llm))
    assert (report["requests"], report["images_to_send"]) == (4, 12)
    assert report["image_tokens"] == 12 * (85 + 170)  # every image is one tile
    assert report["image_token_rule"] == "openai_tiles 85+170"
    assert report["prompt_tokens"] > report["image_tokens"]
    assert report["cost_at_most"] == pytest.approx(report["prompt_tokens"] * 10 / 1e6, abs=1e-4)
    assert not server.bodies


def test_caps_hold_with_images(serve, seen, settings, tmp_path):
    def answer(body, n):
        text = sum(len(part.get("text", "")) for part in body["messages"][1]["content"])
        images = len(body["messages"][1]["content"]) - 1
        return {
            "id": "x", "usage": {"prompt_tokens": text // 4 + 255 * images, "completion_tokens": 9},
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": items(GOOD)}}],
        }  # fmt: skip

    server = serve(answer)
    llm = seeing(settings, server, caps={"max_tokens": 12_000})
    path = seen(server, images=12, llm=llm, sees=["image", "crops"])
    assert run(path) == 1
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    spent = summary["spent"]
    assert summary["stopped_by"].startswith("max_tokens (12,000) is reached") or (
        "max_tokens (12000) is reached" in summary["stopped_by"]
    )
    assert 3 * 765 < spent["prompt_tokens"] + spent["completion_tokens"] <= 12_000
    assert 3 <= len(server.bodies) < 12
    assert run(path, "--options", "llm.caps.max_tokens=1000000") == 0
    assert len(server.bodies) == 12


def test_the_page_shows_images_as_the_model_saw_them(serve, seen, tmp_path):
    server = serve(lambda body, n: items(GOOD))
    assert run(seen(server, images=1, sees=["image", "crops"], shows="marks")) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "Each is shown as the model saw it" in page and 'class="lv-badge"' not in page
    uris = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    images = [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]
    marked = mark_regions(picture(0), REGIONS)
    assert [one.size for one in images] == [
        (100, 100),
        *(marked.crop(crop_window(region.box, (100, 100))).size for region in REGIONS),
    ]
    difference = np.array(images[0], dtype=float) - np.array(marked, dtype=float)
    assert abs(difference).mean() < 12
    assert 'class="lv-chip" data-region="1"' in page  # numbers in texts keep their colours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sees": []}, "name each of text, image, crops at most once"),
        ({"sees": ["image", "image"]}, "at most once"),
        ({"sees": ["text"], "shows": "marks"}, "add image to sees"),
        ({"sees": ["crops"], "shows": "coordinates", "convention": "unit"}, "of the whole image"),
        ({"sees": ["image"], "shows": "coordinates"}, "convention: it goes with"),
        ({"sees": ["image"], "convention": "unit"}, "convention: it goes with"),
        ({"sees": ["image"], "shows": "plain"}, "nothing says which they are"),
        ({"sees": ["crops"], "prompts": [{"regions": "none"}]}, "shows it nothing"),
    ],
)
def test_settings_that_show_nothing_are_refused(tmp_path, options, message):
    (tmp_path / "words.jsonl").write_text(json.dumps(image(0)) + "\n")
    given = {"records": [str(tmp_path / "words.jsonl")], "prompts": [{}], **options}
    with pytest.raises(ValueError, match=message):
        GenerateConfig(**given)


def test_without_a_folder_of_images_nothing_starts(serve, job, tmp_path, capsys):
    path = job(serve(), sees=["image"])
    assert run(path) == 2
    assert "set run.image_root to the folder of the images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "images").mkdir()
    more = ("generate.shows=coordinates", "generate.convention=qwen9")
    assert run(path, "--options", f"run.image_root={tmp_path / 'images'}", *more) == 2
    assert "generate: unknown convention 'qwen9'" in capsys.readouterr().err


def test_blind_runs_keep_their_identity(tmp_path):
    (tmp_path / "words.jsonl").write_text(json.dumps(image(0)) + "\n")
    config = GenerateConfig(records=[str(tmp_path / "words.jsonl")], prompts=[{}])
    identity = KnowledgeGeneration(config, open_records(config.records)).identity()
    assert set(identity) == {"generate", "records", "templates"}
    assert set(identity["generate"]) == {
        "split", "prompts", "max_regions", "max_captions", "max_narratives", "max_concepts",
        "max_dialogue", "max_tokens", "temperature", "top_p", "seed", "structured", "repair",
    }  # fmt: skip
    assert identity["templates"] == "448c7e9455a1828e6cbf5bcffcddd1de"


def test_what_is_shown_is_part_of_the_identity(tmp_path):
    (tmp_path / "words.jsonl").write_text(json.dumps(image(0)) + "\n")
    options = [{}, {"shows": "marks"}, {"sees": ["text", "image"]}, {"max_pixels": 10_000},
               {"image_format": "png"}, {"shows": "coordinates", "convention": "unit"}]  # fmt: skip
    identities = []
    for more in options:
        given = {"sees": ["image"], "records": [str(tmp_path / "words.jsonl")], "prompts": [{}]}
        config = GenerateConfig(**{**given, **more})
        generation = KnowledgeGeneration(config, open_records(config.records), str(tmp_path))
        identities.append(json.dumps(generation.identity()))
    assert len(set(identities)) == len(options)
