"""The quickstart's toy: worlds of pictograms, scripted teachers, grounding, reports.

A run file that names a thing of the toy lists `projects.quickstart` under `run.import_modules`.
Importing it registers names only; what they stand for is imported when first used.
"""

from pathlib import Path

from lavis.common.registry import Target, generators, models, scorers

_CONFIG = "projects.quickstart.config"
_BLIP2, _LATE_FUSION = (
    {"quickstart": str(Path(__file__).with_name(f"{name}_quickstart.yaml"))}
    for name in ("blip2", "late_fusion")
)

generators.extend(
    "openmoji",
    Target("projects.quickstart.generator:OpenmojiGenerator", f"{_CONFIG}:OpenmojiConfig"),
)
scorers.extend("named", Target("projects.quickstart.generator:NamedScorer"))
for _name, _class in (("blip2_critic", "GroundedCritic"), ("blip2", "GroundedStage1")):
    models.extend(
        _name,
        Target(f"projects.quickstart.grounded:{_class}", f"{_CONFIG}:{_class}Config", _BLIP2),
    )
models.extend(
    "late_fusion",
    Target(
        "lavis.models.late_fusion.model:LateFusion",
        "lavis.models.late_fusion.config:LateFusionConfig",
        _LATE_FUSION,
    ),
)
