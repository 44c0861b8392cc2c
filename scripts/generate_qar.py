"""Verbalized images to localized question / answer / rationale records, by a language model.

    python scripts/generate_qar.py --cfg-path lavis/projects/lskd/generate/openai.yaml \
        --options generate.records=[output/words/verbalized.jsonl] --dry-run
    python scripts/generate_qar.py --cfg-path lavis/projects/lskd/generate/local_server.yaml \
        --options llm.base_url=http://localhost:8000/v1 llm.model=my-model ...

Writes `corpus.jsonl` (LCK records), `rejects.jsonl` (each with its reason), `summary.json` and
`report.html` into `run.output_dir`. A killed run goes on where it stopped and pays for no reply
twice: the same command asks for what is left, for what a server refused under settings that have
changed since, and, of a model that sees (`generate.sees`), about images that have changed since.
`--retry-rejects` asks for every request without a record again, under another seed.

Exit status: 0 complete, with or without rejects; 1 something is left (a cap is reached, a server
failed): give the same command again, or no record was made; 2 the run file, the key or the data
cannot be used; 130 interrupted. Whatever the status, what is finished is written.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import command
from lavis.common.config.catalogue import command_sections
from lavis.common.config.sections import Sections, load_sections
from lavis.common.errors import ConfigError, NothingDoneError, RunError
from lavis.datasets.files.formats import open_records
from lavis.tasks.knowledge.estimate import estimate
from lavis.tasks.knowledge.generation import KnowledgeGeneration
from lavis.tasks.knowledge.reasons import count_phrases, how_to_go_on, plural, spent_figures

logger = logging.getLogger("lavis.generate_qar")


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
        "--retry-rejects",
        action="store_true",
        help="ask again for what was refused, or answered with nothing of use",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved config and stop"
    )
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = parse_args(argv)
    config = load_sections(args.cfg_path, args.options, command_sections("generate_qar"))
    if args.print_config:
        sys.stdout.write(config.to_yaml())
        return 0
    generation = KnowledgeGeneration(
        config["generate"], open_records(config["generate"].records), config["run"].image_root
    )
    if args.dry_run:
        print(json.dumps(estimate(generation, config["llm"]), indent=1))
        return 0
    return run(config, generation, retry_rejects=args.retry_rejects)


def run(config: Sections, generation: KnowledgeGeneration, *, retry_rejects: bool = False) -> int:
    """Generate, write the files, and say what was made."""
    from lavis.common.logger import setup_logging
    from lavis.llm.client import build_client
    from lavis.llm.money.ledger import open_ledger
    from lavis.runners.identity import describe_environment, write_provenance
    from lavis.tasks.knowledge.generation_results import write_results
    from lavis.tasks.knowledge.outcomes import Outcomes

    setup_logging()
    folder = Path(config["run"].output_dir)
    seed = config["generate"].seed or 0
    outcomes = Outcomes(
        folder,
        generation.identity(),
        config["llm"],
        retry_rejects=retry_rejects,
        places=generation.places,
    )
    outcomes.check()
    with (
        open_ledger(folder) as ledger,
        build_client(config["llm"], folder / "llm", ledger) as client,
    ):  # both refuse what cannot be asked, before anything is written
        made_with = describe_environment(seed=seed, run_id="", world_size=1)
        write_provenance(folder, config.to_yaml(), made_with)
        with outcomes:
            generation.run(client, outcomes)
        spent = spent_figures(client.spent(), client.reserved())
    summary = write_results(generation, outcomes, config["run"], spent=spent)
    print(json.dumps(summary, indent=1), flush=True)
    return conclude(summary, generation.stop, folder)


def conclude(summary: dict[str, Any], stop: Exception | None, folder: Path) -> int:
    """Say in one line how a run ended; returns its exit status.

    Raises:
        ConfigError: no request can succeed until the run file or the key is mended.
        RunError: something is left, or nothing was made.
    """
    planned = plural(summary["requests_planned"], "request")
    left = f"{summary['left_for_next_start']:,} of {planned} left"
    if isinstance(stop, ConfigError):
        raise ConfigError(f"{stop}; not complete: {left}")
    if stop is not None:
        raise RunError(f"not complete: {stop}; {left}{how_to_go_on(stop)}")
    if summary["left_for_next_start"]:
        why = count_phrases(summary["left_by_reason"])
        raise RunError(f"not complete: {left} ({why}); give the same command again later")
    why = count_phrases(summary["rejected_by_reason"])
    if not summary["records"]:
        raise NothingDoneError(f"{folder}: no request gave a record ({why}); see rejects.jsonl")
    rejects = f" ({why})" if why else ""
    logger.info("complete with %s%s", plural(summary["rejected"], "reject"), rejects)
    return 0


if __name__ == "__main__":
    sys.exit(main())
