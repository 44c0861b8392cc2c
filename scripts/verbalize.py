"""Images and their regions to words: concepts, captions, attributes, questions and answers.

    python scripts/verbalize.py --cfg-path lavis/projects/lskd/verbalize/local.yaml \
        --options images.root=images images.regions=regions.jsonl run.output_dir=output/words
    torchrun --nproc_per_node=4 scripts/verbalize.py --cfg-path ... --options ...
    python scripts/verbalize.py --cfg-path ... --dry-run

Writes `verbalized.jsonl` (a region mapping with descriptors, a line an image), `rejects.jsonl`,
`summary.json` and `report.html` into `run.output_dir`. A killed run goes on where it stopped; a
changed stage is made again with those that read it, and no other. A text that an endpoint does not
give is set aside with its reason, and the rest goes on: the same command asks for what is left, and
for what was refused under settings that have changed since; `--retry-rejects` asks for all that was
refused, or of no use.

Exit status: 0 complete, with or without rejects; 1 something is left (a cap is reached, a server
failed): give the same command again, or nothing was described; 2 the run file, a key or the data
cannot be used; 130 interrupted. Whatever the status, nothing that is finished is lost.
"""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import command
from lavis.common.config.catalogue import command_sections
from lavis.common.config.sections import Sections, load_sections
from lavis.common.errors import RunError

logger = logging.getLogger("lavis.verbalize")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="Sections of the run file: images, stages, run.",
    )
    parser.add_argument("--cfg-path", required=True, help="run file")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="values that win over the run file, e.g. stages.captions.samples=1; a stage that is "
        "null is left out",
    )
    parser.add_argument(
        "--retry-rejects",
        action="store_true",
        help="ask clients again for texts that were refused, or of no use",
    )
    parser.add_argument("--print-config", action="store_true", help="print the config and stop")
    parser.add_argument("--dry-run", action="store_true", help="only count what is left to do")
    return parser.parse_args(argv)


def load_run(cfg_path: str, options: list[str]) -> Sections:
    """Return the checked run file."""
    return load_sections(cfg_path, options, command_sections("verbalize"))


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = parse_args(argv)
    config = load_run(args.cfg_path, args.options)
    if args.print_config:
        sys.stdout.write(config.to_yaml())
        return 0
    return _verbalize(config, dry_run=args.dry_run, retry_rejects=args.retry_rejects)


def _verbalize(config: Sections, *, dry_run: bool, retry_rejects: bool) -> int:
    from lavis.common import dist  # imports torch, which a refused config should not
    from lavis.common.logger import setup_logging
    from lavis.runners.identity import describe_environment, write_provenance
    from lavis.tasks.knowledge.reasons import count_phrases, plural
    from lavis.tasks.knowledge.verbalization import Verbalization

    run = config["run"]
    world = dist.start(run.device, run.timeout_minutes)
    atexit.register(world.leave)  # also after an error, so that no other rank waits
    setup_logging(world.rank)
    job = Verbalization(config["images"], config["stages"], run, world, retry_rejects=retry_rejects)
    if dry_run:
        if world.is_main:
            for name, (left, total) in job.plan.counts().items():
                print(f"{name}: {left} of {total} images left")
        return 0
    job.accept()
    if world.is_main:
        made_with = describe_environment(seed=run.seed, run_id=world.run_id, world_size=world.size)
        write_provenance(Path(run.output_dir), config.to_yaml(), made_with)
    summary = job.run()
    if world.is_main:
        print(json.dumps(summary, indent=1), flush=True)
    if summary["left"]:
        raise RunError(
            f"not complete: {plural(summary['left'], 'text')} left "
            f"({count_phrases(summary['left_by_reason'])}); give the same command again later"
        )
    rejects = sum(summary["reasons"].values())
    why = f" ({count_phrases(summary['reasons'])})" if rejects else ""
    logger.info("complete with %s%s", plural(rejects, "reject"), why)
    world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
