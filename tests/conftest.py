"""Fixtures of all tiers; what belongs to one part lives in a module of its own."""

pytest_plugins = ["tests.kubernetes_api", "tests.s3_server", "tests.zenml_store"]
