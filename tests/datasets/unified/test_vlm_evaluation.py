"""Every benchmark with a tiny vision-language model, three ways, against plain transformers."""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from PIL import Image
from tiny_vlm import make_vlm

from launching import jobs_of, run_steps
from lavis.common import cli
from lavis.common.regions.rle import Rle
from lavis.datasets.unified.choices import AokvqaConverter, SnliVeConverter, Visual7wConverter
from lavis.datasets.unified.convert import convert
from lavis.datasets.unified.gar_bench import GarBenchConverter
from lavis.datasets.unified.sherlock import SherlockConverter
from lavis.datasets.unified.vcr import VcrConverter
from lavis.datasets.unified.visualcomet import VisualCometConverter
from lavis.processors.region import DrawnRegion, draw_regions
from lavis.tasks.comparison import results_table

EVAL = Path(__file__).parents[3] / "lavis" / "projects" / "blip2" / "eval" / "unified_eval"
# run file -> (records, column of the table of results, figure)
BENCHMARKS = {
    "sherlock_comparison": ("sherlock/unified_sherlock_val_comparison", "sherlock", "pairwise"),
    "vcr_qa": ("vcr/unified_vcr_qa_val", "vcr_qa", "accuracy"),
    "vcr_qar": ("vcr/unified_vcr_qar_val", "vcr_qar", "accuracy"),
    "visualcomet_ranking": (
        "visualcomet/unified_visualcomet_val_ranking", "visualcomet", "recall",
    ),
    "aokvqa_mc": ("aokvqa/unified_aokvqa_val_mc", "aokvqa", "accuracy"),
    "snli_ve": ("snli_ve/unified_snli_ve_test", "snli_ve", "accuracy"),
    "v7w_telling": ("v7w/unified_v7w_telling_test", "v7w", "accuracy"),
    "gar_bench": ("gar_bench/unified_gar_bench_vqa", "gar", "accuracy"),
}  # fmt: skip
REGIONS = "{% for region in regions %}{{ region.number }} is {{ region.words }}. {% endfor %}"
PROMPTS = {
    "itm.jinja": f"{REGIONS}{{{{ question }}}} Is it {{{{ answer }}}}?",
    "answer.jinja": f"{REGIONS}{{{{ question }}}}",
}
WAYS = {
    "itm": ["run.score=itm", "model.prompt={prompts}/itm.jinja"],
    "likelihood": ["run.score=likelihood", "model.answer_prompt={prompts}/answer.jinja"],
    "letters": ["run.score=letters", "run.circular=true", "model.letter_prompt=gar"],
}
OUTLINES = ("green", "light blue", "light purple")  # of regions 0, 1 and 2
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "smolvlm")
RUN = ["run.device=cpu", "run.num_workers=0", "run.resamples=20"]


def convert_all(samples, folder):
    """Write the records of every benchmark where its run file looks for them."""
    images = {"image_dir": samples.vcr1images}
    converters = {
        "sherlock_comparison": SherlockConverter(
            annotations=samples.sherlock, answer_key=samples.answer_key
        ),
        "vcr_qa": VcrConverter(annotations=samples.vcr, **images),
        "vcr_qar": VcrConverter(annotations=samples.vcr, task="qar", **images),
        "visualcomet_ranking": VisualCometConverter(
            annotations=samples.visualcomet, count=3, **images
        ),
        "aokvqa_mc": AokvqaConverter(annotations=samples.aokvqa),
        "snli_ve": SnliVeConverter(annotations=samples.snli_ve),
        "v7w_telling": Visual7wConverter(annotations=samples.v7w),
        "gar_bench": GarBenchConverter(annotations=samples.gar, image_root=samples.images),
    }
    for name, converter in converters.items():
        output = folder / f"{BENCHMARKS[name][0]}.jsonl"
        convert(converter, output, rejects=output.with_suffix(".rejects"))


class Counter:
    """Counts images that a tower sees and tokens that a model reads."""

    def __init__(self, monkeypatch):
        self.images = self.tokens = 0
        tower = transformers.models.qwen2_5_vl.modeling_qwen2_5_vl
        self._watch(monkeypatch, tower.Qwen2_5_VisionTransformerPretrainedModel, self._see)
        self._watch(monkeypatch, tower.Qwen2_5_VLForConditionalGeneration, self._read)

    @staticmethod
    def _watch(monkeypatch, owner, count):
        forward = owner.forward

        def counted(self, *args, **options):
            count(*args, **options)
            return forward(self, *args, **options)

        counted.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(owner, "forward", counted)

    def _see(self, hidden_states=None, grid_thw=None, **_):
        self.images += len(grid_thw)

    def _read(self, input_ids=None, **_):
        self.tokens += input_ids.numel()


class Plain:
    """A model of transformers, asked one prompt after the other."""

    def __init__(self, folder):
        self.processor = transformers.AutoProcessor.from_pretrained(folder)
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.tokens = 0

    def encode(self, text):
        return self.processor.tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def log_probs(self, image, text, behind=""):
        """Return log-probabilities `(1 + K, V)` behind a prompt and each of K tokens behind it."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = self.processor(
            text=[prompt + behind],
            images=[[image]],
            return_tensors="pt",
            add_special_tokens=not prompt.startswith("<s>"),  # one is enough
        )
        self.tokens += inputs["input_ids"].numel()
        count = len(self.encode(behind)) if behind else 0
        return self.model(**inputs).logits[0, -1 - count :].log_softmax(dim=-1)

    def log_share(self, image, text, forms, others):
        """Return the log of what some next tokens have of them and others together."""
        probabilities = self.log_probs(image, text)[-1].exp()
        one, both = (
            sum(probabilities[self.encode(form)[0]] for form in part)
            for part in (forms, [*forms, *others])
        )
        return (one / both).log().item()


def shown(record, images):
    """Return the image as it is drawn, what its regions are called, and a writer of tokens."""
    image = Image.open(images / record["image"]).convert("RGB")
    drawn, words, numbers = [], [], {}
    for place, (name, entry) in enumerate(record["references"].items()):
        mask = entry.get("mask")
        box = tuple(entry["boxes"][0][:4])
        drawn.append(DrawnRegion(place, box, mask=Rle.of_coco(mask) if mask else None))
        kind = "area" if mask else "box"
        words.append(f"the {kind} outlined in {OUTLINES[place]}")
        numbers[int(name)] = place

    def write(tokens):
        return " ".join(
            " , ".join(f"[{numbers[i]}]" for i in token) if isinstance(token, list) else token
            for token in tokens
        )

    return draw_regions(image, drawn, width=2), words, write


def plain_itm(plain, record, images):
    image, words, write = shown(record, images)
    regions = "".join(f"{n} is {word}. " for n, word in enumerate(words))
    scores = []
    for choice in record["choices"]:
        answer = write(choice["text_output"])
        text = f"{regions}{write(record['text_input'])} Is it {answer}?"
        yes, no = (
            [before + word for before in ("", " ") for word in (one, one.lower(), one.upper())]
            for one in ("Yes", "No")
        )
        scores.append(plain.log_share(image, text, yes, no))
    return {"match_scores": scores}


def plain_likelihood(plain, record, images):
    image, words, write = shown(record, images)
    regions = "".join(f"{n} is {word}. " for n, word in enumerate(words))
    scores = []
    for choice in record["choices"]:
        answer = write(choice["text_output"])
        rows = plain.log_probs(image, regions + write(record["text_input"]), answer)
        ids = plain.encode(answer)
        scores.append(sum(row[i].item() for row, i in zip(rows, ids, strict=False)) / len(ids))
    return {"match_scores": scores}


def plain_letters(plain, record, images):
    """Ask in every rotation, as GAR-Bench asks."""
    image, words, write = shown(record, images)
    regions = "".join(f"[{n}]: {word}\n" for n, word in enumerate(words))
    head = f"Regions of the image:\n{regions}\n" if words else ""
    candidates = [write(choice["text_output"]) for choice in record["choices"]]
    count = len(candidates)
    sums, choices = [0.0] * count, []
    letters = [[letter, f" {letter}"] for letter in "ABCD"[:count]]
    for first in range(count):
        order = [(first + place) % count for place in range(count)]
        options = "".join(
            f"{letter[0]}. {candidates[c]}\n" for letter, c in zip(letters, order, strict=True)
        )
        text = (
            f"{head}Question: {write(record['text_input'])}\nOptions:\n{options}"
            "Answer with the correct option's letter directly."
        )
        p = plain.log_probs(image, text)[-1].exp()
        shares = [sum(p[plain.encode(form)[0]].item() for form in letter) for letter in letters]
        choices.append(order[shares.index(max(shares))])
        for candidate, share in zip(order, shares, strict=True):
            sums[candidate] += torch.tensor(share / sum(shares)).log().item() / count
    return {"match_scores": sums, "choices": choices}


PLAIN = {"itm": plain_itm, "likelihood": plain_likelihood, "letters": plain_letters}


@pytest.fixture(scope="module")
def world(session_samples, tmp_path_factory):
    """Records, prompts and a model; `evaluate` runs a benchmark once and returns its folder."""
    folder = tmp_path_factory.mktemp("vlm_evaluation")
    convert_all(session_samples, folder / "input")
    for name, text in PROMPTS.items():
        (folder / name).write_text(text)
    models = {family: make_vlm(family, folder / family) for family in FAMILIES}
    environment = {
        "UNIFIED_IMAGE_DIR": str(session_samples.images),
        "UNIFIED_INPUT": str(folder / "input"),
    }

    def arguments(name, way, output, family=FAMILIES[0]):
        options = [option.format(prompts=folder) for option in WAYS[way]]
        options += ["model.arch=vlm_critic", f"model.name={models[family]}"]
        options += [f"run.output_dir={output}"]
        return ["--cfg-path", str(EVAL / f"{name}.yaml"), "--options", *RUN, *options]

    def evaluate(name, way, family=FAMILIES[0]):
        output = folder / "runs" / family / way / name
        if not output.exists():
            with pytest.MonkeyPatch.context() as patch:
                for key, value in environment.items():
                    patch.setenv(key, value)
                counter = Counter(patch)
                assert cli.run_front_end("", "evaluate", arguments(name, way, output, family)) == 0
            evaluated.counts[output] = counter
        return output

    def records(name):
        lines = (folder / "input" / f"{BENCHMARKS[name][0]}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    evaluated = SimpleNamespace(
        folder=folder, environment=environment, arguments=arguments, evaluate=evaluate,
        records=records, images=session_samples.images, counts={},
        plain={family: Plain(place) for family, place in models.items()},
    )  # fmt: skip
    return evaluated


def rows_of(output):
    lines = (output / "result" / "test_epochbest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_scores_are_those_of_one_prompt_after_the_other(world, name, way):
    output, records = world.evaluate(name, way), world.records(name)
    rows = rows_of(output)
    assert len(rows) == len(records)
    plain = world.plain[FAMILIES[0]]
    plain.tokens = 0
    right = {"accuracy": [], "circular": []}
    for row, record in zip(rows, records, strict=True):
        expected = PLAIN[way](plain, record, world.images)
        scores = expected["match_scores"]
        assert row["match_scores"] == pytest.approx(scores, abs=1e-4)
        assert row.get("choices") == expected.get("choices")
        label = record.get("label")
        assert row.get("label") == label and row.get("group") == record.get("group")
        right["accuracy"].append(scores.index(max(scores)) == label)
        right["circular"].append({label} == set(expected.get("choices", ())))
    summary = json.loads((output / "summary.json").read_text())
    for metric, figures in summary["metrics"].items():
        assert figures["records"] == len(rows)
        assert (figures["interval"] is None) == (len(rows) == 1)
        if metric in right:
            assert figures["value"] == pytest.approx(100 * sum(right[metric]) / len(rows))
    assert ("circular" in summary["metrics"]) == (
        way == "letters" and BENCHMARKS[name][2] == "accuracy"
    )
    drawn = {(record["image"], json.dumps(record["references"])) for record in records}
    assert world.counts[output].images == len(drawn)
    assert world.counts[output].tokens < plain.tokens


@pytest.mark.parametrize("family", FAMILIES[1:])
@pytest.mark.parametrize("way", WAYS)
def test_other_families_score_alike(world, family, way):
    rows = rows_of(world.evaluate("gar_bench", way, family))
    for row, record in zip(rows, world.records("gar_bench"), strict=True):
        expected = PLAIN[way](world.plain[family], record, world.images)
        assert row["match_scores"] == pytest.approx(expected["match_scores"], abs=1e-4)
        assert row.get("choices") == expected.get("choices")


def test_each_way_is_a_system_of_the_table_of_results(world, capsys):
    runs = [
        f"{way}:{column}={world.evaluate(name, way)}"
        for way in WAYS
        for name, (_, column, _) in BENCHMARKS.items()
    ]
    capsys.readouterr()
    assert results_table.main(runs) == 0
    table, pairs = capsys.readouterr().out.split("\n\n")
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == list(WAYS)
    # intervals: A-OKVQA's single question has none, and there is Q->AR besides
    assert all(line.count("[") == len(BENCHMARKS) for line in lines[-3:])
    assert lines[1].split()[-1] == "37.50"  # chance of two questions, of four options and of two
    assert len(pairs.splitlines()) == 1 + 3 * len(BENCHMARKS)


def test_two_processes_write_the_rows_of_one(world):
    cases = [("gar_bench", "letters"), ("visualcomet_ranking", "likelihood")]
    steps = []
    for name, way in cases:
        for size in (1, 2):
            arguments = world.arguments(name, way, world.folder / f"{name}_{size}")
            steps.append(jobs_of("evaluate.py", [*arguments, "run.batch_size_eval=4"], size=size))
    imports = ("lavis.models.vlm.critic", "lavis.runners.runner", "lavis.tasks.comparison.task")
    codes, said = run_steps(steps, imports, folder=world.folder, environment=world.environment)
    assert codes == [[0], [0, 0]] * len(cases), said[-3000:]
    for name, way in cases:
        one, two = (world.folder / f"{name}_{size}" for size in (1, 2))
        for file in ("result/test_epochbest.jsonl", "summary.json", "rejects.jsonl"):
            assert (two / file).read_bytes() == (one / file).read_bytes(), (name, file)
        together = rows_of(world.evaluate(name, way))
        for row, other in zip(rows_of(one), together, strict=True):
            assert row["match_scores"] == pytest.approx(other["match_scores"], abs=1e-4)
