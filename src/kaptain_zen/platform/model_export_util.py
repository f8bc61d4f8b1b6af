"""`ModelExportUtil` at the Kaptain SDK's module path; loads the training slice only."""

from kaptain_zen.training.export import ModelExportUtil

__all__ = ["ModelExportUtil"]
