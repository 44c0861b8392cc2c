"""The command: its files, what is made again after a change, kill and resume, two processes."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from verbalizing import make_image

from launching import KILLED, jobs_of, main_of, run_steps
from lavis.datasets.lck.regions import open_mapping

ROOT = Path(__file__).parents[3]
IMPORTS = (
    "lavis.tasks.knowledge.verbalization",
    "lavis.verbalizers.writing",
    "lavis.verbalizers.concepts",
    "transformers:AutoProcessor",
    "transformers:AutoModelForImageTextToText",
    "transformers:CLIPModel",
    "transformers:CLIPProcessor",
)
verbalize = main_of("scripts/verbalize.py")
OUTPUTS = ("verbalized.jsonl", "rejects.jsonl", "summary.json")


def stages(world, tiny):
    facts = [
        {"image": "p1.png", "captions": ["ready"], "region_locations": [{"caption": "a dog"}]},
        {"image": "p2.png", "dynamic": [{"question": "q?", "answer": "a"}]},
        {"image": "p4.png", "region_locations": {"0": {"attributes": ["red", "old"]}}},
    ]
    (world / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    lists = {"things": str(world / "words.txt")}
    local = {"model": tiny("blip2"), "max_tokens": 4}
    return {
        "concepts": {"model": tiny("clip"), "vocabularies": lists, "top_k": 2, "chunk": 2},
        "captions": {"writer": local, "samples": 2, "prompt": "the", "chunk": 1},
        "region_captions": {"writer": local, "prompt": "a {name}", "chunk": 2},
        "attributes": {"model": tiny("clip"), "vocabularies": lists, "chunk": 2},
        "sidecar": {"path": str(world / "facts.jsonl"), "chunk": 2},
    }


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(world, name):
    """Return the folders of a stage's finished versions."""
    return sorted(p.parent.name for p in (world / "out/stages" / name).glob("*/descriptors.jsonl"))


def test_a_run_writes_a_mapping_with_descriptors(world, tiny, run_file):
    arguments = run_file(stages(world, tiny))
    assert verbalize(arguments) == 0
    records = read_lines(world / "out/verbalized.jsonl")
    assert [record["image"] for record in records] == ["p0.png", "p1.png", "p2.png", "p4.png"]
    assert list(records[1]) == [
        "image", "region_locations", "width", "height", "concepts", "captions", "narratives",
        "dynamic",
    ]  # fmt: skip
    one = records[1]
    assert (one["width"], one["height"], len(one["concepts"]["things"])) == (60, 40, 2)
    assert one["captions"][-1] == "ready" and 2 <= len(one["captions"]) <= 3
    [region] = one["region_locations"]
    assert list(region) == ["name", "boxes", "obj_guess", "caption", "attributes"]
    assert region["boxes"] == [[5, 4, 30, 30]] and region["obj_guess"] == "dog"
    assert region["caption"] == "a dog" and len(region["attributes"]) == 1
    assert records[2]["dynamic"] == [{"question": "q?", "answer": "a"}]
    assert records[3]["region_locations"][0]["attributes"][-2:] == ["red", "old"]
    rejects = read_lines(world / "out/rejects.jsonl")
    shown = [(r["image"], r["stage"], r["reason"].split(":")[0], r["rejected"]) for r in rejects]
    assert ("p3.png", "pictures", "broken image", True) in shown
    assert ("p4.png", "pictures", "bad box", False) in shown
    summary = json.loads((world / "out/summary.json").read_text())
    assert (summary["pictures"], summary["written"], summary["rejected"]) == (5, 4, 1)
    assert summary["regions"] == 4 and summary["reasons"]["pictures: bad box"] == 1
    mapping = open_mapping(str(world / "out/verbalized.jsonl"))
    assert mapping.regions("p2.png")[1]["boxes"] == [[10, 10, 55, 38]]
    assert verbalize(run_file({}, "again", regions=str(world / "out/verbalized.jsonl"))) == 2
    assert verbalize([*arguments, "--dry-run"]) == 0


def test_a_changed_stage_is_made_again_with_those_that_read_it(world, tiny, run_file):
    settings = stages(world, tiny)
    settings["region_captions"]["only_missing"] = True
    for name in ("captions", "concepts"):
        del settings[name]
    settings = {"sidecar": settings.pop("sidecar"), **settings}
    arguments = run_file(settings)
    assert verbalize(arguments) == 0
    first = {name: made(world, name) for name in settings}
    changed = [*arguments, "--options", "stages.attributes.top_k=2"]
    assert verbalize(changed) == 0
    assert {n for n in settings if made(world, n) != first[n]} == {"attributes"}
    (world / "facts.jsonl").write_text('{"image": "p1.png", "captions": ["new"]}\n')
    assert verbalize(arguments) == 0
    assert {n for n in settings if len(made(world, n)) == 2} == {
        "sidecar", "region_captions", "attributes",
    }  # fmt: skip
    assert read_lines(world / "out/verbalized.jsonl")[1]["captions"] == ["new"]


def test_own_regions_come_back_from_a_mapping(world, tiny, run_file):
    stage = {"sidecar": stages(world, tiny)["sidecar"]}
    assert verbalize(run_file(stage)) == 0
    before = (world / "out/verbalized.jsonl").read_text()
    (world / "none.jsonl").write_text('{"image": "x"}\n')
    stage["sidecar"]["path"] = str(world / "none.jsonl")
    assert verbalize(run_file(stage, "out2", regions=str(world / "out/verbalized.jsonl"))) == 0
    assert (world / "out2/verbalized.jsonl").read_text() == before


def test_detected_regions_are_described_by_later_stages(world, tiny, run_file):
    words = str(world / "words.txt")
    settings = {
        "detect": {
            "model": tiny("owlv2"), "vocabulary": words, "threshold": 0, "max_regions": 3,
        },
        "attributes": {"model": tiny("clip"), "vocabularies": {"things": words}},
    }  # fmt: skip
    assert verbalize(run_file(settings, regions=None)) == 0
    for record in read_lines(world / "out/verbalized.jsonl"):
        entries = record["region_locations"]
        assert 1 <= len(entries) <= 3 and all(len(e["attributes"]) == 1 for e in entries)
        assert {e["obj_guess"] for e in entries} <= {"red", "blue", "dog", "cat", "tree"}


def job(arguments, output, **how):
    """Return the jobs of a run into another folder; see `jobs_of`."""
    options = [*arguments, "--options", f"run.output_dir={output}"]
    return jobs_of("scripts/verbalize.py", options, **how)


def test_killed_runs_and_two_processes_write_the_files_of_one(world, tiny, run_file):
    settings = stages(world, tiny)
    arguments = run_file({n: settings[n] for n in ("concepts", "captions", "sidecar")})
    whole, killed, shared = (str(world / name) for name in ("whole", "killed", "shared"))
    batches = [
        job(arguments, whole),
        job(arguments, killed, die_at=3),
        job(arguments, killed, die_at=4),
        job(arguments, killed),
        job(arguments, shared, size=2),
    ]
    statuses, said = run_steps(batches, IMPORTS)
    assert statuses == [[0], [KILLED], [KILLED], [0], [0, 0]], said[-3000:]
    for name in OUTPUTS:
        content = Path(whole, name).read_bytes()
        assert Path(killed, name).read_bytes() == content, name
        assert Path(shared, name).read_bytes() == content, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concepts": {"model": "x", "topk": 3}}, "topk: unknown key; did you mean 'top_k'"),
        ({"tags": {}}, "tags.type: unknown verbalizer 'tags'"),
        ({"pictures": {"type": "sidecar"}}, "pictures: a stage's name"),
        ({"captions": {"writer": {}}}, "a local writer needs a model's id or folder"),
        ({"captions": {"writer": {"type": "client"}}}, "client.backend: missing; one of openai"),
        ({"concepts": {"model": "x", "templates": ["a"]}}, "has no {} for the word"),
        ({}, "no stages"),
        ({"sidecar": {"path": "nowhere.jsonl"}}, "stages.sidecar.path: no such file"),
        (
            {"d": {"type": "dynamic", "asker": {"model": "x"}, "answerer": {"model": "x"},
                   "reads": ["captoins"]}},
            "stages.d.reads: no earlier stage 'captoins'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(run_file, capsys, change, message):
    assert verbalize(run_file(change)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["local", "endpoint", "sidecar", "grounding"])
def test_shipped_run_files_load(name, world, capsys):
    path = ROOT / "lavis/projects/lskd/verbalize" / f"{name}.yaml"
    options = ["--options", f"images.root={world}", "--print-config"]
    assert verbalize(["--cfg-path", str(path), *options]) == 0
    assert "output_dir: output/" in capsys.readouterr().out


def describing(world, tiny):
    settings = stages(world, tiny)
    return {name: settings[name] for name in ("concepts", "attributes", "sidecar")}


def chunks(world, stage):
    """Return how often each chunk of a stage was made."""
    counts = {}
    for path in (world / "out/stages" / stage).glob("*/journal/*.jsonl"):
        for line in path.read_text().splitlines():
            if line.startswith('{"unit"'):
                unit = json.loads(line)["unit"]
                counts[unit] = counts.get(unit, 0) + 1
    return counts


def test_changed_and_mended_images_are_verbalized_again_and_no_others(world, tiny, run_file):
    settings = describing(world, tiny)
    arguments = run_file(settings)
    assert verbalize(arguments) == 0
    before = read_lines(world / "out/verbalized.jsonl")
    assert [record["image"] for record in before] == ["p0.png", "p1.png", "p2.png", "p4.png"]
    assert verbalize(arguments) == 0
    assert chunks(world, "concepts") == {0: 1, 1: 1, 2: 1}
    make_image(77).save(world / "images/p3.png")  # it was broken
    make_image(78, (64, 40)).save(world / "images/p2.png")
    assert verbalize(arguments) == 0
    assert chunks(world, "concepts") == {0: 1, 1: 2, 2: 1}  # of two images each: p2 and p3
    assert chunks(world, "attributes") == {0: 1, 1: 2, 2: 1}
    assert verbalize(run_file(settings, "fresh")) == 0
    for name in OUTPUTS[:2]:
        assert (world / "out" / name).read_bytes() == (world / "fresh" / name).read_bytes()
    after = read_lines(world / "out/verbalized.jsonl")
    assert after[2]["width"] == 64 and after[3]["image"] == "p3.png"


def test_a_stage_is_made_again_where_one_that_it_reads_says_something_else(world, tiny, run_file):
    settings = describing(world, tiny)
    arguments = run_file(settings)
    assert verbalize(arguments) == 0
    (stage,) = (world / "out/stages/pictures").glob("*/descriptors.jsonl")
    stage.write_text(stage.read_text().replace('"dog"', '"cow"'))  # as after a kill in between
    assert verbalize(arguments) == 0
    assert chunks(world, "pictures") == {0: 1}
    assert max(chunks(world, "attributes").values()) == 2
    assert "cow" in (world / "out/verbalized.jsonl").read_text()


def test_other_images_of_the_same_names_are_refused(world, tiny, run_file, capsys):
    settings = {"sidecar": describing(world, tiny)["sidecar"]}
    assert verbalize(run_file(settings)) == 0
    before = (world / "out/verbalized.jsonl").read_bytes()
    shutil.copytree(world / "images", world / "copied")
    assert verbalize(run_file(settings, root=str(world / "copied"))) == 0
    config = (world / "out/config.yaml").read_bytes()
    make_image(79).save(world / "copied/p1.png")
    assert verbalize(run_file(settings, root=str(world / "copied"))) == 2
    said = capsys.readouterr().err
    assert "these descriptors are of files in" in said and "first: p1.png" in said
    assert (world / "out/verbalized.jsonl").read_bytes() == before
    assert (world / "out/config.yaml").read_bytes() == config


def test_a_grounding_model_behind_a_server_gives_the_regions(world, serve, settings, run_file):
    def answer(body, n):
        parts = body["messages"][0]["content"]
        shown = color_of_first(parts[0])
        if shown == color_of_first(None, world / "images/p0.png"):
            return "A dog is on the left."  # twice: under another seed, too
        return '```json\n[{"bbox_2d": [0, 0, 500, 1000], "label": "dog"}]\n```'

    server = serve(answer)
    client = settings(server, server="there")
    stage = {
        "convention": "qwen3_vl", "vocabulary": str(world / "words.txt"),
        "writer": {"type": "client", "client": client, "max_tokens": 300, "image_size": 30},
    }  # fmt: skip
    assert verbalize(run_file({"ground": stage}, regions=None)) == 0
    by_image = {one["image"]: one for one in read_lines(world / "out/verbalized.jsonl")}
    entry = by_image["p1.png"]["region_locations"][0]
    assert (entry["boxes"], entry["obj_guess"]) == ([[0, 0, 30, 40]], "dog")
    assert entry["from"] == {"stage": "ground", "convention": "per_mille_json"}
    reasons = [one["reason"] for one in read_lines(world / "out/rejects.jsonl")]
    assert any("unreadable regions: no region: 'A dog is on the left.'" in one for one in reasons)
    assert len(server.bodies) == 5  # four images that open, one of them twice
    assert verbalize(run_file({"ground": stage}, regions=None)) == 0 and len(server.bodies) == 5


def color_of_first(part, path=None):
    """Return a rough colour of the first corner of a message part's image, or of a file's."""
    data = path.read_bytes() if path else base64.b64decode(part["image_url"]["url"].split(",")[1])
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((30, 20))
    return tuple(round(value / 40) for value in image.getpixel((2, 2)))
