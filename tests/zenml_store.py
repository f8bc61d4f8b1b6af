"""Fixtures with a ZenML store of the test session's own, and stacks on it.

Loaded by `tests/conftest.py` as a pytest plugin. No test ever sees the ZenML store of whoever runs
the tests; nothing is made before a test asks for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from zenml.client import Client

_VARIABLES = {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
    "ZENML_LOGGING_COLORS_DISABLED": "true",
}
StackFactory = Callable[..., AbstractContextManager[str]]


def _forget_store() -> None:
    """Make ZenML read its configuration anew. It offers no public way to do so."""
    if "zenml.client" in sys.modules:
        from zenml.client import Client
        from zenml.config.global_config import GlobalConfiguration

        GlobalConfiguration._reset_instance()
        Client._reset_instance()


@pytest.fixture(scope="session", autouse=True)
def zenml_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where ZenML keeps everything in this session, in this process and those that it starts."""
    folder = tmp_path_factory.mktemp("zenml")
    ours = _VARIABLES | {
        "ZENML_CONFIG_PATH": str(folder / "config"),
        "ZENML_LOCAL_STORES_PATH": str(folder / "stores"),
    }
    foreign = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("ZENML_STORE_", "ZENML_ACTIVE_")) or name in ours
    }
    for name in foreign:
        del os.environ[name]
    os.environ.update(ours)
    _forget_store()
    yield folder
    for name in ours:
        os.environ.pop(name, None)
    os.environ.update(foreign)
    _forget_store()


@pytest.fixture(scope="session")
def zenml_client(zenml_folder: Path) -> Client:
    """A client of the session's store, with its default stack."""
    from zenml.client import Client

    client = Client()
    assert client.active_stack_model.name == "default"
    return client


@pytest.fixture(scope="session")
def local_stacks(zenml_client: Client) -> StackFactory:
    """Makes active stacks of our local flavors, each with a home, for the length of a block."""
    from zenml.client import Client

    from kaptain_zen.components.registration import register_flavors, register_local_stack

    register_flavors()

    @contextmanager
    def local_stack(home: Path, **options: str) -> Iterator[str]:
        before = Client().active_stack_model.id
        name = f"kaptain-{uuid4().hex[:8]}"
        options.setdefault("storage_uri", (home / "models").as_uri())
        register_local_stack(name, home=str(home), activate=True, **options)
        try:
            yield name
        finally:
            clear_home(home)
            Client().activate_stack(before)

    return local_stack


@pytest.fixture
def local_home(tmp_path: Path) -> Iterator[Path]:
    """A home of the local platform; whatever serves or runs in it is removed afterwards."""
    home = tmp_path / "home"
    yield home
    clear_home(home)


@pytest.fixture
def local_stack(local_stacks: StackFactory, local_home: Path) -> Iterator[str]:
    """An active stack of our local flavors with a home of its own, by its name."""
    with local_stacks(local_home) as name:
        yield name


@pytest.fixture
def process_environment() -> Callable[..., dict[str, str]]:
    """Environment for a process that a test starts: this one's, and more variables."""

    def environment(**more: str) -> dict[str, str]:
        folder = str(Path(sys.executable).parent)
        path = os.pathsep.join((folder, os.environ.get("PATH", "")))
        return {**os.environ, "PATH": path, "COLUMNS": "250", **more}

    return environment


def clear_home(home: Path) -> None:
    """Remove all services and runs of a home, with their processes."""
    if not home.exists():
        return
    from kaptain_zen.platform.platform import local

    platform = local(home=str(home))
    for service in platform.server.list():
        platform.server.delete(service.model_id)
    for run in platform.trainer.runs():
        platform.trainer.delete(run.handle)
    platform.server.cleanup()
