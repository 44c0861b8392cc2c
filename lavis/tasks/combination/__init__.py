"""Several critics of one corpus: their score files joined, combined and compared."""
