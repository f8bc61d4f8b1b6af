"""What is known of a cluster: its folder, and the record in it by which others find everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from devcluster.errors import DevclusterError
from devcluster.paths import STATE_ROOT, write_private
from devcluster.processes import ProcessRef

_FORMAT = 1


class Phase(StrEnum):
    """How far a cluster has come. What is found in any phase but `UP` was interrupted."""

    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


@dataclass(frozen=True)
class State:
    """The record of a cluster.

    Attributes:
        size: What it is made of; a key of `sizes.SIZES`.
        phase: How far it has come.
        ports: What listens where on loopback.
        processes: What runs, by component.
        built: Seconds that building took, by component; what was there already has no entry.
        started: Seconds from a component's start until it was ready.
    """

    size: str
    phase: Phase = Phase.STARTING
    ports: Mapping[str, int] = field(default_factory=dict)
    processes: Mapping[str, ProcessRef] = field(default_factory=dict)
    built: Mapping[str, float] = field(default_factory=dict)
    started: Mapping[str, float] = field(default_factory=dict)

    def with_process(self, name: str, ref: ProcessRef) -> State:
        """The same, with a process of a component."""
        return replace(self, processes={**self.processes, name: ref})

    def to_json(self) -> str:
        """As text."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> State:
        """From text.

        Raises:
            ValueError: It is not of this format.
        """
        content: dict[str, Any] = json.loads(text)
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise ValueError(f"it is not a record of format {_FORMAT}")
        try:
            processes = {n: ProcessRef(**ref) for n, ref in content.pop("processes").items()}
            phase = Phase(content.pop("phase"))
            return cls(phase=phase, processes=processes, **content)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not a record of a cluster: {error!r}") from error


class Folder:
    """The folder that holds everything of one cluster.

    Args:
        path: Where; nothing is made before `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.pki = self.path / "pki"
        self.etc = self.path / "etc"
        self.logs = self.path / "logs"
        self.data = self.path / "data"
        self.bin = self.path / "bin"
        self.kubeconfig = self.path / "kubeconfig"
        self.lock = self.path / "lock"
        self._record = self.path / "state.json"

    def claim(self) -> None:
        """Make the folder if it does not exist, for the lock to be put into.

        Raises:
            DevclusterError: It holds what is not ours.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._record.exists():
            # The lock is made before the record, and removed after it.
            others = sorted(p.name for p in self.path.iterdir() if p != self.lock)
            if others and not all(name.startswith(".state.json.") for name in others):
                raise DevclusterError(
                    f"{self.path} holds {others[0]} but no cluster. Name a folder of its own."
                )

    def create(self, state: State) -> None:
        """Begin a cluster: the record first, then the folders."""
        self.write(state)
        for path in (self.pki, self.etc, self.logs, self.data, self.bin):
            path.mkdir(mode=0o700)

    def read(self) -> State | None:
        """The record, None where there is no cluster.

        Raises:
            DevclusterError: There is one that cannot be understood.
        """
        try:
            return State.from_json(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise DevclusterError(
                f"{self._record} cannot be understood: {error}. Use the version of devcluster that "
                "wrote it, or end its processes and delete the folder."
            ) from None

    def write(self, state: State) -> None:
        """Keep the record, in one step."""
        write_private(self._record, state.to_json())

    def clear(self) -> None:
        """Delete all but the lock and the record, without which nobody would know the rest."""
        for path in self.path.iterdir():
            if path in (self._record, self.lock):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def remove(self) -> None:
        """Delete everything."""
        self.clear()
        self._record.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Delete the lock, and the folder unless something is in it, such as another's lock."""
        self.lock.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
            if self.path.parent == STATE_ROOT:
                STATE_ROOT.rmdir()

    def log(self, name: str) -> Path:
        """Where a component's output goes."""
        return self.logs / f"{name}.log"
