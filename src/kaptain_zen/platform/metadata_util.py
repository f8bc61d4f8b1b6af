"""`MetadataUtil` at the Kaptain SDK's module path; loads the training slice only."""

from kaptain_zen.training.metadata import MetadataUtil

__all__ = ["MetadataUtil"]
