"""The critic's scores: one per record, thresholds, a kept corpus, a report."""
