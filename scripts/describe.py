"""Say what run files may hold: a key, a section, or everything as JSON.

python scripts/describe.py run.batch_size_eval
python scripts/describe.py --json > catalogue.json
python scripts/describe.py run.images.options --import-modules projects.quickstart
"""

import argparse
import json
import sys

from lavis.common import registry
from lavis.common.command import command
from lavis.common.config.catalogue import catalogue, explain


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("key", nargs="?", default="help", help="a key, a section, or help")
    parser.add_argument(
        "--json",
        action="store_true",
        help="everything: registered names, default YAMLs, options with type, default, choices, "
        "meaning and home, sections of scripts, retired keys",
    )
    parser.add_argument(
        "--import-modules",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="list what these modules register, too",
    )
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = parse_args(argv)
    for module in args.import_modules:
        registry.import_module(module, "--import-modules")
    print(json.dumps(catalogue(), indent=1) if args.json else explain(args.key))
    return 0


if __name__ == "__main__":
    sys.exit(main())
