"""A scene of two regions, and a writer that keeps what it is asked."""

from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.scenes import Scene


def open_scene(folder, number=2):
    """Return a scene of two regions, whose ids are 0 and 3."""
    entries = {"0": [5, 4, 30, 30], "3": [10, 10, 55, 38]}
    regions = {
        key: {"name": key, "boxes": [box], "obj_guess": "dog"} for key, box in entries.items()
    }
    record = {"image": f"p{number}.png", "region_locations": regions, "width": 60, "height": 40}
    return Scene(record, ImageRoot(str(folder / "images")), 10**6)


class Recorder:
    """A writer that keeps what it is asked, and answers from a list or with the request's key."""

    def __init__(self, answers=None):
        self.requests, self.answers = [], answers

    def write(self, requests):
        asked = list(requests)
        self.requests += asked
        return [self.answers.pop(0) if self.answers else request.key for request in asked]
