"""Image descriptions and question-answer-rationale items, written by models."""
