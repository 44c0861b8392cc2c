"""The browse page: search, filters and charts over a corpus."""
