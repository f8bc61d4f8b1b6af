"""Starts a run's supervisor: by a fork of a process with the imports done, or afresh."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local import limits, warm
from kaptain_zen.platform.local.command import training_environment
from kaptain_zen.platform.local.launch import start_supervisor
from kaptain_zen.platform.local.planning import imports_ahead, wanted_gpus


@dataclass(frozen=True)
class Script:
    """What decides which imports can be shared, and under which variables.

    Attributes:
        main: The main file.
        base_dir: Folder that the model's files are relative to.
        resources: Of each worker.
        upload_uri: Where the model goes.
    """

    main: Path
    base_dir: Path
    resources: Resources
    upload_uri: str


class Starter:
    """Knows the environment of trainings, and how to start them."""

    def __init__(self, storage: Mapping[str, str], *, warm_start: bool) -> None:
        """Prepare.

        Args:
            storage: The storage's credentials as environment variables.
            warm_start: Whether runs may be forked.
        """
        self._storage = dict(storage)
        self._warm_start = warm_start

    def prepare(self, script: Script) -> None:
        """Begin the imports of runs to come, if they can be shared."""
        found = self._warm(script)
        if found is not None:
            warm.SERVERS.prepare(*found)

    def start(self, script: Script, *, folder: Path, lock: int, uid: str) -> None:
        """Start the supervisor of a run.

        Args:
            script: What will run.
            folder: The run's folder.
            lock: Descriptor of its lock.
            uid: Its id.

        Raises:
            WorkloadDeploymentError: It cannot be started.
            ConfigurationError: The switch for warm starts is set to nonsense.
        """
        environment = self._environment(script)
        found = self._warm(script)
        if found is not None:
            key, of_imports = found
            if warm.SERVERS.start(
                key,
                of_imports,
                folder=folder,
                lock=lock,
                run_environment=environment,
                uid=uid,
            ):
                return
        start_supervisor(folder, lock, environment)

    def _environment(self, script: Script) -> dict[str, str]:
        cpus = limits.cpus_of(script.resources.cores)
        return training_environment(os.environ, self._storage, limits.thread_variables(cpus))

    def _warm(self, script: Script) -> tuple[warm.Key, dict[str, str]] | None:
        """Which warm server is the right one, and its environment; None if none is."""
        # With GPUs, what imports do to them would be shared as well.
        if not self._warm_start or not warm.switched_on() or wanted_gpus(script.resources):
            return None
        statements = imports_ahead(script.main, script.base_dir, script.upload_uri)
        if not statements:
            return None
        environment = self._environment(script)
        for name in self._storage:
            del environment[name]
        return warm.Key.of(statements, environment), environment
