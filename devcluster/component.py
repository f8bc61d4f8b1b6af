"""The shape of every part of a cluster: build, prepare, start, ready, stop."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devcluster import kubeconfig
from devcluster.api import Api
from devcluster.golang import Command, Module
from devcluster.processes import ProcessRef, spawn
from devcluster.progress import Progress
from devcluster.state import Folder, State

ADDRESS = "127.0.0.1"


@dataclass
class Context:
    """What a component sees of the cluster that it is part of.

    Attributes:
        folder: Holds all that the cluster writes.
        state: The record, as it was last written.
        write: Keeps a new record.
    """

    folder: Folder
    state: State
    write: Callable[[State], None]

    def port(self, name: str) -> int:
        """The port that was chosen for a name."""
        return self.state.ports[name]

    def process(self, name: str) -> ProcessRef | None:
        """A component's process, whether or not it still runs."""
        return self.state.processes.get(name)

    def api(self) -> Api:
        """The API server, as administrator."""
        return Api(kubeconfig.read(self.folder.kubeconfig))

    def spawn(self, name: str, binary: Path, *arguments: str) -> None:
        """Start a component's process, recorded before it runs.

        It gets no environment but a PATH and homes inside of the cluster's folder, so that nothing
        of whoever starts it leaks in, and nothing is written elsewhere.
        """

        def record(ref: ProcessRef) -> None:
            self.state = self.state.with_process(name, ref)
            self.write(self.state)

        home = str(self.folder.data)
        spawn(
            [str(binary), *arguments],
            log=self.folder.log(name),
            folder=self.folder.path,
            environment={"PATH": os.defpath, "HOME": home, "TMPDIR": home},
            record=record,
        )


class Component(ABC):
    """One part of a cluster. It has no state of its own: that is in the context.

    Attributes:
        name: Of the component, its process and its log.
        ports: Names of the ports on loopback that it listens on.
        seconds: How long it may take until it is ready.
        grace: Seconds that its process gets to end by itself.
    """

    name: ClassVar[str]
    ports: ClassVar[tuple[str, ...]] = ()
    seconds: ClassVar[float] = 60.0
    grace: ClassVar[float] = 10.0

    @property
    @abstractmethod
    def version(self) -> str:
        """What is started, such as v1.34.4."""

    @property
    @abstractmethod
    def is_built(self) -> bool:
        """Whether there is something to start."""

    @abstractmethod
    def build(self, progress: Progress) -> bool:
        """Make sure that there is something to start.

        Returns:
            Whether that had to be made; False when it was there.
        """

    @abstractmethod
    def prepare(self, context: Context) -> None:
        """Write what it needs into the folder of a new cluster, once."""

    @abstractmethod
    def start(self, context: Context) -> None:
        """Start it; also again, after it ended, with the data that it had."""

    @abstractmethod
    def ready(self, context: Context) -> str | None:
        """Look once, without waiting.

        Returns:
            None when it is ready, else why it is not yet.

        Raises:
            OSError, ApiError: It does not answer; taken as the reason.
        """

    def stop(self, context: Context, *, at_once: bool = False) -> None:
        """End its process, and return when it has ended.

        Args:
            context: The cluster.
            at_once: Whether by SIGKILL.
        """
        if ref := context.process(self.name):
            ref.stop(grace=0.0 if at_once else self.grace)


class GoComponent(Component):
    """A component that is a command of a Go module.

    Attributes:
        module: The module.
        command: The command.
    """

    module: ClassVar[Module]
    command: ClassVar[Command]

    @property
    def version(self) -> str:
        """What go.mod pins."""
        return self.module.version(self.command.versioned_by)

    @property
    def is_built(self) -> bool:
        """Whether the cache has it."""
        return self.binary.exists()

    @property
    def binary(self) -> Path:
        """Where it is, once built."""
        return self.module.binary(self.command)

    def build(self, progress: Progress) -> bool:
        """Build it, if the cache does not have it."""
        return self.module.build(self.command, progress)


def flags(**values: str | int | Path) -> list[str]:
    """Command line flags: `secure_port=1` is `--secure-port=1`."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
