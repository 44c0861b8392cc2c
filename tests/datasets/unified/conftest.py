"""Small samples of every benchmark in its published form, and their images."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from lavis.common.regions.rle import encode_counts

FILM = "lsmdc_0001_A_FILM/0001_A_FILM_00.00.01.000-00.00.05.000@0.jpg"
META = FILM.replace(".jpg", ".json")
OTHER = "lsmdc_0001_A_FILM/0001_A_FILM_00.01.00.000-00.01.05.000@1.jpg"

VCR = {
    "movie": "0001_A_FILM",
    "objects": ["person", "person", "cup"],
    "img_fn": FILM,
    "metadata_fn": META,
    "question": ["What", "is", [1], "giving", "to", [0], "?"],
    "answer_choices": [
        ["A", [2], "."],
        [[1], "gives", [0], "nothing", "."],
        [[0, 1], "share", "a", "book", "."],
        ["A", "coat", "."],
    ],
    "answer_label": 0,
    "rationale_choices": [
        [[1], "holds", "a", [2], "."],
        ["It", "rains", "."],
        [[0], "reads", "."],
        [[2], "is", "empty", "."],
    ],
    "rationale_label": 0,
    "img_id": "val-0",
    "question_number": 0,
    "annot_id": "val-0",
}
METADATA = {
    "boxes": [[2, 2, 20, 26, 0.99], [22, 2, 38, 26, 0.98], [16, 14, 24, 20, 0.7]],
    "segms": [[], [], []],
    "names": ["person", "person", "cup"],
    "width": 40,
    "height": 30,
}
SHERLOCK = [
    {
        "inputs": {
            "image": {
                "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/7.jpg",
                "width": 40,
                "height": 30,
            },
            "bboxes": [
                {"left": 4, "top": 5, "width": 10, "height": 8},
                {"left": 20, "top": 5, "width": 6.5, "height": 9},
            ],
            "clue": "wet coats on a rack",
            "confidence": 3.0,
            "obs_idx": 0,
        },
        "targets": {"inference": "it rained today"},
        "instance_id": "iid-a",
        "split_idx": 0,
    },
    {
        "inputs": {
            "image": {
                "url": f"http://s3-us-west-2.amazonaws.com/ai2-rowanz/vcr1images/{FILM}",
                "width": 40,
                "height": 30,
            },
            "bboxes": [{"left": 1, "top": 1, "width": 20, "height": 20}],
            "clue": "a cake with candles",
        },
        "targets": {"inference": "it is a birthday"},
        "instance_id": "iid-b",
    },
]
ANSWER_KEY = [
    {
        "Input_iid": "iid-a",
        "candidates": [
            {"prediction": "it rained today", "annot1": 3, "annot2": 3},
            {"prediction": "it is a birthday", "annot1": 1, "annot2": 1},
            {"prediction": "people came in from outside", "annot1": 2, "annot2": 3},
        ],
    },
    {
        "Input_iid": "iid-b",
        "candidates": [
            {"prediction": "it rained today", "annot1": 1, "annot2": 1},
            {"prediction": "it is a birthday", "annot1": 3, "annot2": 2},
        ],
    },
]
VISUALCOMET = [
    {
        "img_fn": FILM,
        "movie": "0001_A_FILM",
        "metadata_fn": META,
        "place": "in a kitchen",
        "event": "2 hands 1 a cup",
        "intent": ["be kind to 1", "serve tea"],
        "before": ["make tea"],
        "after": ["sit down next to 1"],
    },
    {
        "img_fn": OTHER,
        "movie": "0001_A_FILM",
        "metadata_fn": META,
        "place": "outside",
        "event": "1 runs away",
        "intent": ["escape", "hide from 3", "lose 1's followers", "serve tea"],
        "before": ["see danger", "open the door", "push 2 aside"],
        "after": ["hide", "call for help"],
    },
]
AOKVQA = [
    {
        "split": "val",
        "image_id": 299207,
        "question_id": "22jbM6gDxdaMaunuzgrsBB",
        "question": "What is in the man's mouth?",
        "choices": ["toothpick", "food", "popsicle stick", "cigarette"],
        "correct_choice_idx": 3,
        "direct_answers": ["cigarette"] * 10,
        "difficult_direct_answer": False,
        "rationales": ["He smokes.", "It burns.", "Smoke."],
    }
]
SNLI_VE = [
    {
        "Flickr30K_ID": "4705552913",
        "annotator_labels": ["neutral", "neutral", "entailment", "neutral", "neutral"],
        "captionID": "4705552913.jpg#2",
        "gold_label": label,
        "pairID": f"4705552913.jpg#2r1{label[0]}",
        "sentence1": "Two women are hugging.",
        "sentence2": "The sisters are hugging goodbye.",
    }
    for label in ("neutral", "entailment", "-")
]
V7W = {
    "dataset": "v7w_telling",
    "images": [
        {
            "filename": f"v7w_{image}.jpg",
            "image_id": image,
            "split": split,
            "qa_pairs": [
                {
                    "qa_id": image * 10,
                    "image_id": image,
                    "type": "when",
                    "question": "When was this?",
                    "answer": "Daytime.",
                    "multiple_choices": ["At night.", "In the evening.", "At dawn."],
                }
            ],
        }
        for image, split in ((1, "train"), (2, "test"), (3, "test"))
    ],
}

# Runs of 30 pixels a column: columns 2 to 11, rows 5 to 14; and columns 20 to 33, all rows.
LEFT = {"size": [30, 40], "counts": encode_counts([65, *[10, 20] * 9, 10, 855])}
RIGHT = {"size": [30, 40], "counts": encode_counts([600, 420, 180])}
GAR = [
    {
        "image": "sa_1.png",
        "mask_rles": [LEFT],
        "question": "What colour is <Prompt0>?",
        "choices": ["A. red", "B. Light blue", "C. green", "D. black"],
        "answer": "B",
        "type": "color",
        "mask_path": "/home/someone/masks/sa_1.json",
    },
    {
        "image": "sa_2.png",
        "mask_rles": [LEFT, RIGHT],
        "question": "Is <Prompt1> behind (<Prompt0>)?",
        "choices": ["A. yes, <Prompt1> is", "B. no"],
        "answer": "A",
        "type": "relation",
    },
]


def write_samples(root: Path) -> SimpleNamespace:
    """Write the published files to `root/published` and images to `root/images`."""
    published, images = root / "published", root / "images"
    published.mkdir()
    names = ["VG_100K_2/7.jpg", "val2017/000000299207.jpg", "flickr30k-images/4705552913.jpg"]
    names += [f"vcr1images/{name}" for name in (FILM, OTHER)]
    names += ["visual7w/v7w_2.jpg", "visual7w/v7w_3.jpg"]
    names += [f"gar_bench/{item['image']}" for item in GAR]
    for number, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (25 * number, 120, 200 - 20 * number)).save(images / name)
    (images / "vcr1images" / META).write_text(json.dumps(METADATA))

    def save(name, content, lines=False):
        path = published / name
        text = "".join(json.dumps(x) + "\n" for x in content) if lines else json.dumps(content)
        path.write_text(text)
        return path

    return SimpleNamespace(
        images=images,
        vcr1images=images / "vcr1images",
        vcr=save("val.jsonl", [VCR, {**VCR, "annot_id": "val-1", "answer_label": 1}], lines=True),
        sherlock=save("sherlock_val_with_split_idxs_v1_1.json", SHERLOCK),
        answer_key=save("val_comparison_answer_key.json", ANSWER_KEY),
        visualcomet=save("val_annots.json", VISUALCOMET),
        aokvqa=save("aokvqa_v1p0_val.json", AOKVQA),
        snli_ve=save("snli_ve_test.jsonl", SNLI_VE, lines=True),
        v7w=save("dataset_v7w_telling.json", V7W),
        gar=save("GAR-Bench-VQA.json", GAR),
        save=save,
        of=SimpleNamespace(
            vcr=VCR,
            sherlock=SHERLOCK,
            answer_key=ANSWER_KEY,
            visualcomet=VISUALCOMET,
            v7w=V7W,
            gar=GAR,
        ),
    )


@pytest.fixture
def samples(tmp_path):
    return write_samples(tmp_path)


@pytest.fixture(scope="session")
def session_samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def converted(tmp_path):
    """Convert; return records, rejects and counts."""

    def run(converter, limit=None):
        from lavis.datasets.unified.convert import convert

        output, rejects = tmp_path / "out" / "records.jsonl", tmp_path / "out" / "rejects.jsonl"
        counts = convert(converter, output, rejects=rejects, limit=limit)
        read = [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in (output, rejects)
        ]
        return SimpleNamespace(records=read[0], rejects=read[1], counts=counts, output=output)

    return run
