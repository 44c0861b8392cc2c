"""The label page: which records are asked, judgements, agreement."""
