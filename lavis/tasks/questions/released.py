"""Result files under the names and in the form of the released scripts, beside our own.

ImageNetVC: `<subset>/prompt<i>.json`, a list of `question_id` (from 1) and `answer`, and
`<subset>/results.txt`; other benchmarks: `results.txt` of a few lines. Answers are those of
the released rule with images, or of the text alone in a run without.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lavis.common.storage.atomic import write_text

Answers = dict[str, list[tuple[int, list[str]]]]  # group -> (number of a question, by prompt)


class ReleasedFiles:
    """Collects answers, then writes."""

    def __init__(self, benchmark: str, model_name: str, num_images: int) -> None:
        self._benchmark, self._model, self._count = benchmark, model_name, num_images
        self._answers: Answers = {}

    def add(self, payload: dict[str, Any]) -> None:
        """Add a question."""
        rules = payload["predicted"].get("pictures", payload["predicted"]["text"])
        if self._benchmark == "imagenetvc" and "first_token" in rules:
            number = int(payload["question_id"].rpartition("-")[2])
            self._answers.setdefault(payload["group"], []).append((number, rules["first_token"]))

    def write(self, folder: Path, results: dict[str, Any]) -> None:
        """Write all files; nothing if the run lacks the released rule."""
        rule = next((r for r, n in results["rules"].items() if n["protocol"] == "released"), None)
        if rule is None:
            return
        if self._benchmark != "imagenetvc":
            write_text(folder / "results.txt", self._lines(results))
            return
        for group, answers in self._answers.items():
            place = folder / re.sub(r"[^\w.-]+", "_", group)
            for prompt in range(len(answers[0][1])):
                listed = [{"question_id": n, "answer": words[prompt]} for n, words in answers]
                write_text(place / f"prompt{prompt}.json", json.dumps(listed))
            columns = results["groups"][group]["rules"]["first_token"]
            values = columns.get("pictures", columns["text"])
            lines = [
                f"Accuracy for prompt{n}: {accuracy / 100} "
                for n, accuracy in enumerate(values["per_prompt"])
            ]
            lines.append(f"Mean result: {values['mean']}, Std result: {values['std']}")
            write_text(place / "results.txt", "\n".join(lines) + "\n")

    def _lines(self, results: dict[str, Any]) -> str:
        whole = results.get("all") or next(iter(results["groups"].values()))
        lines = [
            f"model_name_or_path: {self._model}",
            f"TestSet: {self._benchmark}",
            f"k: {self._count}",
        ]
        for rule, note in results["rules"].items():
            if note["protocol"] == "released":
                columns = whole["rules"][rule]
                mean = columns.get("pictures", columns["text"])["mean"]
                name = rule if rule in ("exact_match", "f1") else "Accuracy"
                lines.append(f"{name}: {mean:.2f}")
        return "\n".join(lines) + "\n"
