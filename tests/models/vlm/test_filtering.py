"""A corpus filtered by a vision-language model: killed and resumed, on two processes, as bytes."""

import json
import re

import pytest

from launching import KILLED, ROOT, jobs_of, run_steps

RUN = ROOT / "lavis" / "projects" / "vlm" / "eval" / "filtering.yaml"
CORPUS = ROOT / "tests" / "fixtures" / "lskd" / "filter"
IMPORTS = ("lavis.models.vlm.critic", "lavis.datasets.lck.dataset", "lavis.tasks.filtering.task")
NODE = "datasets.unified_vqa_binary.build_info"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, vlm_folder):
    """Folders of four runs: whole, killed five times, on two processes, no beginning shared."""
    folder = tmp_path_factory.mktemp("filtered")
    model = vlm_folder("qwen2_5_vl")

    def run(name, *options, size=1, die_at=0):
        arguments = [
            "--cfg-path", str(RUN), "--options", f"model.name={model}",
            f"{NODE}.annotations.test.storage={CORPUS / 'records.jsonl'}",
            f"{NODE}.images.storage={CORPUS / 'images'}", f"run.output_dir={folder / name}",
            "run.num_workers=0", "run.batch_size_eval=2", "run.keep_above=[0.42,0.445]",
            "run.device=cpu", *options,
        ]  # fmt: skip
        return jobs_of("evaluate.py", arguments, size=size, die_at=die_at)

    steps = [run("whole"), *(run("killed", die_at=2) for _ in range(5)), run("killed")]
    steps += [run("two", size=2), run("alone", "model.share_prefix=false")]
    statuses, stderr = run_steps(steps, IMPORTS)
    assert statuses == [[0], *[[KILLED]] * 5, [0], [0, 0], [0]], stderr[-3000:]
    return folder


def files(folder):
    names = ["result/test_epochbest.json", "result/test_epochbest.jsonl", "rejects.jsonl"]
    names += [str(path.relative_to(folder)) for path in sorted((folder / "kept").iterdir())]
    return {name: (folder / name).read_bytes() for name in names}


def rows(folder):
    lines = (folder / "result" / "test_epochbest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("other", ["killed", "two"])
def test_the_files_are_those_of_an_uninterrupted_run(runs, other):
    whole = files(runs / "whole")
    assert files(runs / other) == whole
    kept = [content for name, content in whole.items() if name.startswith("kept/")]
    assert len(kept) == 2 and len(kept[0]) > len(kept[1])  # the thresholds keep unlike many


def test_every_record_has_a_score_and_its_mass(runs):
    scored = rows(runs / "whole")
    assert len(scored) == 14
    assert len({row["score"] for row in scored}) == 14
    assert all(0 < row["mass"] <= 1 for row in scored)


def test_the_report_traces_rows_and_a_resumed_run_traces_the_same(runs):
    page = (runs / "whole" / "report.html").read_text()
    assert page.count('class="card trace"') == 6 and page.count("the exact prompt") == 6
    scores = sorted(row["score"] for row in rows(runs / "whole"))
    assert f'<span class="score">{scores[0]:.3f}</span>' in page
    assert len(re.findall(r"as the model sees it, image 1, \d+ by \d+ pixels", page)) == 6
    assert (runs / "killed" / "report.html").read_text() == page


def test_a_shared_beginning_changes_no_score(runs):
    shared, alone = rows(runs / "whole"), rows(runs / "alone")
    assert [row["score"] for row in shared] == pytest.approx(
        [row["score"] for row in alone], abs=1e-5
    )


def test_other_weights_are_refused(runs, vlm_folder):
    arguments = ["--cfg-path", str(RUN), "--options", f"model.name={vlm_folder('gemma3')}"]
    arguments += [f"{NODE}.annotations.test.storage={CORPUS / 'records.jsonl'}"]
    arguments += [f"{NODE}.images.storage={CORPUS / 'images'}", f"run.output_dir={runs / 'whole'}"]
    arguments += ["run.num_workers=0", "run.batch_size_eval=2", "run.device=cpu"]
    arguments += ["run.keep_above=[0.42,0.445]"]
    before = files(runs / "whole")
    statuses, stderr = run_steps([jobs_of("evaluate.py", arguments)], IMPORTS)
    assert statuses == [[2]]
    assert "this journal belongs to another job" in stderr and "weights is" in stderr
    assert files(runs / "whole") == before
