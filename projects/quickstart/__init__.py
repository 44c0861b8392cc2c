"""The quickstart's toy: worlds of pictograms, scripted teachers, grounding, reports.

A run file that names a thing of the toy lists `projects.quickstart` under `run.import_modules`.
Importing it registers the names only; what they stand for is imported when first used.
"""

from lavis.common.registry import Target, generators, scorers

generators.extend(
    "openmoji",
    Target(
        "projects.quickstart.generator:OpenmojiGenerator",
        "projects.quickstart.config:OpenmojiConfig",
    ),
)
scorers.extend("named", Target("projects.quickstart.generator:NamedScorer"))
