"""What an address shows, without a page."""

import pytest

from lavis.ui.browse.query import Filter
from lavis.ui.browse.service import BrowseService, Score
from lavis.ui.shown import RecordViewer


@pytest.fixture
def service(corpus, world):
    _, dataset, query = corpus
    viewer = RecordViewer(dataset)
    return BrowseService(viewer, query, world.folder / "out", page_size=10, name="my corpus.jsonl")


def test_an_address_is_shown_with_its_page_and_what_is_wrong_with_it(service):
    view = service.show("?p=99")
    assert (view.number, view.address) == (6, "?p=6") and "60 of 63 records" in view.line
    assert "3 bad records left out (1 malformed line" in view.line
    assert "no such source: gone" in service.show("?source=gone").line
    wrong = service.show("?score_from=x")
    assert "score from: &#39;x&#39; is not a number" in wrong.line
    assert (wrong.number, wrong.facets, wrong.detail) == (1, "", "")


def test_a_record_is_opened_with_its_neighbours(service):
    assert service.detail("") == ""
    page = service.detail("?open=10")
    assert "8 of 60" in page and "open=6" in page and "open=11" in page
    assert "not in this selection" in service.detail("?open=10&words=absent")
    assert "Row 900: the corpus has no such row." in service.detail("?open=900")
    assert "Row 7: malformed line" in service.detail("?open=7")


def test_scores_and_names_of_files(service):
    assert service.score(0) == Score(None, None) and service.score(1).first == pytest.approx(0.01)
    assert Score(0.25, 0.75).difference == 0.5 and Score(None, 1.0).difference is None
    name = service.file_name(Filter())
    assert name == service.file_name(Filter()) != service.file_name(Filter(text="red"))
    assert name.startswith("my-corpus-") and name.endswith(".jsonl")


def test_a_selection_is_saved_and_sent(service, world):
    message = service.export("?words=red")
    (path,) = (world.folder / "out").iterdir()
    assert "records written to" in message and str(path) in message
    assert b"".join(service.lines(Filter(text="red"))) == path.read_bytes()
    service.out = None
    assert "no folder was named with --out" in service.export("")
