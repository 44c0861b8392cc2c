"""The label page: who judges which records, judgements, agreement."""
