"""Local pages that show a corpus and take people's judgements; import the submodule needed."""
