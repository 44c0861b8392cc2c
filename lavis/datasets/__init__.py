"""Records, images and batches; import the submodule that is needed."""

from lavis.datasets.files.frame import read_frame

__all__ = ["read_frame"]
