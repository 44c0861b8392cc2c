"""Records of the labelling page, all read."""

from lavis.ui.label.queue import CorpusItems, drawn_rows


def read_items(dataset, limit=None, seed=0):
    """Return all items of a data set, or of `limit` rows drawn by the seed."""
    items = CorpusItems(dataset, drawn_rows(len(dataset), limit, seed))
    items.check_all()
    return items


class ListedItems(CorpusItems):
    """Items that need no corpus."""

    def __init__(self, items):
        super().__init__(None, range(len(items)))
        self._items = dict(enumerate(items))
        self._places = {item.key: place for place, item in enumerate(items)}
        self.is_whole = True
