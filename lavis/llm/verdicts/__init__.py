"""Verdicts of models behind an endpoint: probabilities of yes, scores of rerankers, judges."""
