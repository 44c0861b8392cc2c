"""The Batch API: jobs that are bought once and read whole."""
