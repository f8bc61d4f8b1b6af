"""Model deployers. ZenML stores these class paths, so they keep their names."""
