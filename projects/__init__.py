"""What a reader reads, by paper; the quickstart's toy worlds; checks of the whole repository."""
