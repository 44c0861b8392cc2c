"""Local pages to browse and label a corpus; import the submodule needed."""
