"""Verbalized pictures to localized question / answer / rationale records, by a language model.

    python scripts/generate_qar.py --cfg-path lavis/projects/lskd/generate/openai.yaml \
        --options generate.records=[output/words/verbalized.jsonl] --dry-run
    python scripts/generate_qar.py --cfg-path lavis/projects/lskd/generate/local_server.yaml \
        --options llm.base_url=http://localhost:8000/v1 llm.model=my-model ...

Writes `corpus.jsonl` (LCK records), `rejects.jsonl` (each with its reason) and `summary.json` into
`run.output_dir`. A killed run goes on where it stopped and pays for no reply twice. Exit status: 0
done; 1 something is left (a cap is reached, a server failed), start again later; 2 the run file or
the data cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import command
from lavis.common.errors import NothingDoneError
from lavis.common.sections import Sections, load_sections
from lavis.datasets.records import RecordStore
from lavis.llm.config import LlmSettings
from lavis.tasks.generation import Generation, estimate
from lavis.tasks.generation_config import GenerateConfig, GenerationRunConfig

SECTIONS = {"llm": LlmSettings, "generate": GenerateConfig, "run": GenerationRunConfig}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="Sections of the run file: llm, generate, run.",
    )
    parser.add_argument("--cfg-path", required=True, help="run file")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="values that win over it"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="estimate requests, tokens and money; send nothing"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved config and stop"
    )
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = parse_args(argv)
    config = load_sections(args.cfg_path, args.options, SECTIONS)
    if args.print_config:
        sys.stdout.write(config.to_yaml())
        return 0
    generation = Generation(config["generate"], RecordStore(config["generate"].records))
    if args.dry_run:
        print(json.dumps(estimate(generation, config["llm"]), indent=1))
        return 0
    return run(config, generation)


def run(config: Sections, generation: Generation) -> int:
    """Generate, write the files, and say what was made."""
    from lavis.common.journal import Journal, JournalReader, check_segments
    from lavis.common.logger import Progress, setup_logging
    from lavis.common.provenance import describe_environment, write_provenance
    from lavis.llm.client import build_client
    from lavis.tasks.generation_results import write_results

    setup_logging()
    folder = Path(config["run"].output_dir)
    seed = config["generate"].seed or 0
    fingerprint = generation.fingerprint(config["llm"])
    check_segments(folder / "journal", fingerprint)  # before anything is written
    write_provenance(
        folder, config.to_yaml(), describe_environment(seed=seed, run_id="", world_size=1)
    )
    with (
        build_client(config["llm"], folder / "llm") as client,
        Journal(folder / "journal", fingerprint) as journal,
    ):
        done = len(journal.done_units())
        progress = Progress(generation.units, "generating", unit="requests", done=done)
        generation.run(client, journal, progress)
        progress.close()
        totals = client.totals()
    with JournalReader(folder / "journal", fingerprint) as reader:
        summary = write_results(
            generation, reader, folder, compress=config["run"].compress, totals=totals
        )
    print(json.dumps(summary, indent=1))
    if summary["complete"] and not summary["records"]:
        raise NothingDoneError(
            f"{folder}: no reply held a record that is of use; see rejects.jsonl"
        )
    return 0 if summary["complete"] else 1


if __name__ == "__main__":
    sys.exit(main())
