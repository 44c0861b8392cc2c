"""The model of lm-evaluation-harness: equal to its own one without images, to our task with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from lavis.common.errors import ConfigError
from lavis.generators.config import ImagesConfig
from lavis.generators.prompts import image_prompts
from lavis.integrations.harness import LateFusionLM
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.task import VisualQuestionsTask
from projects.checks.golden import preset

ROOT = Path(__file__).resolve().parents[2]
TEXT = "What is the color of a tench? Answer: green. What is the flask made of? steel and glass. "
PAIRS = [
    ("What is the color of a tench? Answer:", " green"),
    ("What is the color of a tench? Answer:", " black"),
    ("What is the color of a tench? ", "brown and green"),  # the blank moves to the continuation
    ("What is the color of a tench?", " Answer: black"),
    ("", "hello world"),
    ("A man. " * 120, "walks home to eat soup."),  # loses its beginning
]
WAYS = [
    (TEXT, {"until": ["."], "max_gen_toks": 20}),
    ("What is", {"until": ["."], "max_gen_toks": 20}),
    ("What is a", {"until": "zzz", "max_gen_toks": 12, "do_sample": False}),
]
COLORS = [("What is the color of a tench?", "green"), ("What color is milk?", "white")]
GOALS = [
    {
        "goal": "How do you keep soup warm?",
        "sol1": "In a flask.",
        "sol2": "On a plate.",
        "label": 0,
    },
    {"goal": "What is a flask made of?", "sol1": "soup", "sol2": "green steel", "label": 1},
    {"goal": "Who eats?", "sol1": "A man", "sol2": "A stove", "label": 0},
]


def requests(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_harness_default_device_means_the_cpu(tiny):
    lm = LateFusionLM(llm=str(tiny.llm), device="cuda:0")
    assert next(lm.model.parameters()).device == torch.device("cpu")


@pytest.fixture(scope="module")
def text_only(tiny):
    return LateFusionLM(llm=str(tiny.llm), batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def theirs(tiny):
    """Without its cache, which misreads a short continuation beside a longer one of one text."""
    return get_model("hf")(
        pretrained=str(tiny.llm), batch_size=4, device="cpu", dtype="float32", logits_cache=False
    )


def test_text_only_equals_the_harness_own_model(text_only, theirs):
    asked = requests("loglikelihood", PAIRS)
    found, expected = text_only.loglikelihood(asked), theirs.loglikelihood(asked)
    for (value, greedy), (their_value, their_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(their_value, abs=1e-4) and greedy == their_greedy
    assert any(greedy for _, greedy in found)
    asked = requests("loglikelihood_rolling", [(TEXT * 12,), (TEXT,)])
    found, expected = (m.loglikelihood_rolling(asked) for m in (text_only, theirs))
    assert found == pytest.approx(expected, rel=1e-6)
    asked = requests("generate_until", WAYS)
    found, expected = (m.generate_until(asked) for m in (text_only, theirs))
    assert found == expected and any(found)


def test_images_come_with_the_context_and_batches_change_nothing(tiny, text_only, images):
    drawn = {prompt for context, _ in PAIRS[:4] for prompt in image_prompts(context, 2)}
    sharing = images(sorted(drawn), 2)
    one, many = (
        LateFusionLM(**tiny.args, **sharing, batch_size=size, device="cpu") for size in (1, 8)
    )
    asked = requests("loglikelihood", PAIRS[:5])
    alone, together = one.loglikelihood(asked), many.loglikelihood(asked)
    assert [v for v, _ in alone] == pytest.approx([v for v, _ in together], abs=1e-4)
    assert [greedy for _, greedy in alone] == [greedy for _, greedy in together]
    plain = text_only.loglikelihood(asked)
    assert together[4][0] == pytest.approx(plain[4][0], abs=1e-4)  # nothing to draw
    assert all(abs(a[0] - b[0]) > 1e-3 for a, b in zip(together[:4], plain, strict=False))
    assert one.max_length == text_only.max_length - 16  # patches stand in front
    asked = requests("generate_until", [(PAIRS[0][0], WAYS[2][1]), (PAIRS[3][0], WAYS[2][1])])
    assert one.generate_until(asked) == many.generate_until(asked)
    asked = requests("loglikelihood_rolling", [(TEXT,)])
    plain = text_only.loglikelihood_rolling(asked)
    assert many.loglikelihood_rolling(asked) == pytest.approx(plain, rel=1e-6)  # one window


def test_the_released_way_draws_the_continuation_too(tiny, images):
    drawn = ["".join(pair) for pair in PAIRS[:2]]
    lm = LateFusionLM(**tiny.args, **images(drawn, 1), images_of="all", device="cpu")
    (green, _), (black, _) = lm.loglikelihood(requests("loglikelihood", PAIRS[:2]))
    assert green != black


@pytest.fixture
def data(tmp_path):
    """Files of two benchmarks, and a task of the harness on one of them."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = "".join(f"x,{question},{answer}\n" for question, answer in COLORS)
    (folder / "color.csv").write_text(f"category,question,answer\n{lines}")
    (folder / "piqa.jsonl").write_text("".join(json.dumps(goal) + "\n" for goal in GOALS))
    task = {
        "task": "tiny_piqa",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "piqa.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{goal}}",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "doc_to_target": "label",
    }
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "tiny_piqa.yaml").write_text(json.dumps(task))
    (tasks / "ours.yaml").write_text(
        f"include: {ROOT}/lavis/configs/lm_eval/imagenetvc/imagenetvc_color_prompt0.yaml\n"
        "task: tiny_color\n"
    )
    return folder


def our_rows(tiny, benchmark, data, options):
    """Ask a benchmark with our own task; returns rows by column."""
    node = {
        "generator": "folder",
        "num_images": options["k"],
        "scorer": None,
        "cache_dir": options["cache_dir"],
        "options": {name: options[f"options.{name}"] for name in ("root", "manifest")},
    }
    config = VisualQuestionsConfig(
        tokenizer=str(tiny.llm), images=ImagesConfig(**node), columns=["text", "images"]
    )
    vision = VisionConfig(name=str(tiny.tower), weights="config")
    section = LateFusionConfig(
        llm=str(tiny.llm), vision=vision, pretrained=tiny.weights, weights="mean"
    )
    processor = {"name": "blip_image_eval", "image_size": 32}
    subsets = {"subsets": ["color"]} if benchmark == "imagenetvc" else {}
    dataset = preset.make_dataset(benchmark, data, processor=processor, **subsets)
    model = LateFusion.from_config(section).eval()
    return preset.answer(VisualQuestionsTask(config), model, dataset).rows


def harness_rows(folder, tmp_path, args):
    """Run the command on a folder of tasks; returns its samples by task."""
    code = (
        "import sys; sys.argv = sys.argv[1:];"
        "import functools, lm_eval.tasks as tasks;"  # its 14,000 own files take a minute to list
        "tasks.TaskManager = functools.partial(tasks.TaskManager, include_defaults=False);"
        "from lavis.integrations.lm_eval_command import main; sys.exit(main())"
    )
    given_args = ",".join(f"{key}={value}" for key, value in args.items())
    command = [
        *(sys.executable, "-c", code, "lavis-lm-eval", "--model", "late_fusion"),
        *("--model_args", given_args, "--tasks", str(tmp_path / "tasks"), "--device", "cpu"),
        *("--batch_size", "4", "--metadata", f"data_dir={folder}"),
        *("--log_samples", "--output_path", str(tmp_path / "out")),
    ]
    environment = {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for path in (tmp_path / "out").rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        name = path.name.removeprefix("samples_").split("_20")[0]
        found[name] = sorted(rows, key=lambda row: row["doc_id"])
    return found


def compare(samples, rows, column):
    """Compare the harness's samples of both tasks with our result rows."""
    for sample, row in zip(samples["tiny_piqa"], rows["piqa"], strict=True):
        values = [float(value) for value, _ in sample["filtered_resps"]]
        wanted = row["values"][column]["option_likelihood"]
        assert values == pytest.approx(wanted, abs=1e-4)
        assert sample["acc"] == row["marks"][column]["option_likelihood"][0]
    for sample, row in zip(samples["tiny_color"], rows["imagenetvc"], strict=True):
        top = max(float(value) for value, _ in sample["filtered_resps"])
        wanted = row["values"][column]["candidate_likelihood"][0][0]
        assert top == pytest.approx(wanted, abs=1e-4)
        assert sample["acc"] == row["marks"][column]["candidate_likelihood"][0]


def test_the_command_equals_our_own_task_on_the_same_items(tiny, data, images, tmp_path, text_only):
    prompts = [question for question, _ in COLORS] + [goal["goal"] for goal in GOALS]
    options = images(prompts, 2)
    ours = {name: our_rows(tiny, name, data, options) for name in ("imagenetvc", "piqa")}
    assert ours["piqa"][0]["values"]["text"] != ours["piqa"][0]["values"]["pictures"]
    compare(harness_rows(data, tmp_path, {**tiny.args, **options}), ours, "pictures")
    manager = TaskManager(
        include_path=str(tmp_path / "tasks"),
        include_defaults=False,
        metadata={"data_dir": str(data)},
    )
    tasks = ["tiny_piqa", "tiny_color"]
    found = simple_evaluate(model=text_only, tasks=tasks, task_manager=manager)
    compare(found["samples"], ours, "text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generatr": "folder"}, "unknown key 'generatr'"),
        ({"k": 3}, "k is 3, but no generator"),
        ({"k": -1, "generator": "openmoji"}, "k is -1"),
        ({"mix": "sums"}, "mix"),
        ({"images_of": "options"}, "use context or all"),
        ({"batch_size": 0}, "use a whole number of 1 or more, or auto"),
        ({"batch_size": "abc"}, "batch_size is 'abc'; use a whole number of 1 or more, or auto"),
        ({"batch_size": "auto", "max_batch_size": "z"}, "max_batch_size is 'z'"),
        ({"max_length": "long"}, "max_length is 'long'; use a whole number of 2 or more"),
        ({"max_length": -5}, "max_length is -5"),
        ({"max_length": 10**9}, "max_length is 1000000000, but texts of at most 192 tokens fit"),
        ({"max_gen_toks": 2.5}, "max_gen_toks is 2.5"),
        ({"add_bos_token": "maybe"}, "add_bos_token is 'maybe'; use True or False"),
        ({"add_bos_token": True}, "has no start token"),
    ],
)
def test_wrong_arguments_are_named(tiny, options, message):
    with pytest.raises(ConfigError, match=message):
        LateFusionLM(llm=str(tiny.llm), device="cpu", **options)


def test_a_device_that_does_not_exist_is_named(tiny):
    with pytest.raises(ConfigError, match=r"device is .banana.; use cpu, cuda or"):
        LateFusionLM(llm=str(tiny.llm), device="banana")


def tokenizer_folder(tiny, folder, **settings):
    folder.mkdir()
    (folder / "tokenizer.json").write_text((tiny.llm / "tokenizer.json").read_text())
    known = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(known))
    return str(folder)


def test_a_start_token_is_put_where_it_is_asked_for(tiny, tmp_path, text_only):
    start = "<|endoftext|>"
    folder = tokenizer_folder(tiny, tmp_path / "start", bos_token=start, eos_token=start)
    plain = text_only.tok_encode("a man")
    wanted = {None: plain, False: plain, True: [0, *plain]}
    for add, tokens in wanted.items():
        lm = LateFusionLM(llm=str(tiny.llm), tokenizer=folder, add_bos_token=add, device="cpu")
        assert lm.tok_encode("a man") == tokens


def test_a_tokenizer_without_an_end_token_continues_and_says_what_it_cannot(tiny, tmp_path):
    folder = tokenizer_folder(tiny, tmp_path / "endless")
    lm = LateFusionLM(llm=str(tiny.llm), tokenizer=folder, device="cpu")
    asked = requests("generate_until", [("What is", {"max_gen_toks": 3})])
    assert lm.generate_until(asked)[0]
    with pytest.raises(ConfigError, match="neither a start token nor an end token"):
        lm.loglikelihood(requests("loglikelihood", [("", "hello")]))


def test_tokens_that_the_model_does_not_know_are_named(tiny, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny.llm)
    tokenizer.add_tokens(["<img>"])
    tokenizer.save_pretrained(tmp_path / "added")
    lm = LateFusionLM(llm=str(tiny.llm), tokenizer=str(tmp_path / "added"), device="cpu")
    with pytest.raises(ConfigError, match=r"the token .<img>., number 2000, .* vectors for 2000"):
        lm.loglikelihood(requests("loglikelihood", [("a <img> man", " eats")]))


def test_an_empty_text_is_continued_after_the_prefix_token(text_only):
    way = {"max_gen_toks": 4, "until": ["zzz"]}
    found = text_only.generate_until(requests("generate_until", [("", way)]))
    start = text_only.tokenizer.decode([text_only.prefix_token_id])
    assert found == text_only.generate_until(requests("generate_until", [(start, way)]))


def test_a_text_whose_images_are_all_withheld_has_none(tiny, images, monkeypatch):
    options = images(image_prompts("a man", 2), 2)
    lm = LateFusionLM(**tiny.args, **options, device="cpu")
    monkeypatch.setattr(lm._images._images, "sets", lambda question: [])
    assert lm._images.samples(["a man"]) == {}


def test_a_language_model_is_needed():
    with pytest.raises(ConfigError, match="llm: missing"):
        LateFusionLM(device="cpu")


def test_a_saved_folder_needs_no_other_name(tiny, tmp_path, text_only):
    vision = VisionConfig(name=str(tiny.tower), weights="config")
    config = LateFusionConfig(llm=str(tiny.llm), vision=vision, pretrained=tiny.weights)
    LateFusion.from_config(config).save_pretrained(tmp_path / "saved")
    lm = LateFusionLM(pretrained=str(tmp_path / "saved"), k=0, device="cpu", batch_size="auto")
    asked = requests("loglikelihood", PAIRS[:3])
    values = [value for value, _ in lm.loglikelihood(asked)]
    assert values == pytest.approx([v for v, _ in text_only.loglikelihood(asked)], abs=1e-4)


def test_random_answers_are_refused(text_only):
    asked = requests("generate_until", [("What", {"do_sample": True})])
    with pytest.raises(ConfigError, match="do_sample"):
        text_only.generate_until(asked)
    for way, message in (
        ({"max_gen_toks": "x"}, "max_gen_toks is 'x'"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"length_penalty": "x"}, "length_penalty is 'x'; use a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            text_only.generate_until(requests("generate_until", [("What", way)]))
    asked = requests("generate_until", [("What", {"max_gen_toks": 4000})])
    with pytest.raises(ConfigError, match="max_gen_toks is 4000"):
        text_only.generate_until(asked)


def test_one_process_gathers_what_it_has(text_only):

    assert text_only.all_gather(torch.tensor(3)).tolist() == [3]
    assert text_only.gather_object("a") == ["a"]
    text_only.barrier()
