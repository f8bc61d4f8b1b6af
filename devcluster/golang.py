"""Commands built from pinned Go modules, once per content and user."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.locks import locked
from devcluster.paths import cache_folder, write_private
from devcluster.processes import ProcessRef, spawn
from devcluster.progress import Progress

# From nothing, on two cores that others use as well, the largest command takes five minutes.
_BUILD_SECONDS = 3600.0
_TAIL = 20
_SOURCES = (".mod", ".sum", ".go")


@dataclass(frozen=True)
class Command:
    """One program.

    Attributes:
        name: Of the binary.
        package: Its import path; a `tool` line of the module's go.mod.
        versioned_by: The required module whose version it has.
    """

    name: str
    package: str
    versioned_by: str


@dataclass(frozen=True)
class Module:
    """A folder with a go.mod that requires what is built.

    Attributes:
        folder: The folder.
        stamps: Go variables that are set by the linker.
    """

    folder: Path
    stamps: dict[str, str] = field(default_factory=dict)

    def version(self, path: str) -> str:
        """The version that go.mod requires of a module, such as v1.34.4.

        Raises:
            DevclusterError: It requires none.
        """
        text = (self.folder / "go.mod").read_text(encoding="utf-8")
        found = required_version(text, path)
        if found is None:
            raise DevclusterError(f"{self.folder / 'go.mod'} does not require {path}.")
        return found

    @property
    def arguments(self) -> list[str]:
        """What `go build` is told, apart from what to build and where to."""
        stamps = [f"-X {name}={value}" for name, value in sorted(self.stamps.items())]
        return [
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            " ".join(["-s -w", *stamps]),
        ]

    @cached_property
    def key(self) -> str:
        """Names what the binaries are made of."""
        digest = hashlib.sha256()
        made_of = [sys.platform, platform.machine(), *self.arguments]
        digest.update(json.dumps(made_of).encode())
        for path in sorted(p for p in self.folder.rglob("*") if p.suffix in _SOURCES):
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(self.folder)} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()[:16]

    def binary(self, command: Command) -> Path:
        """Where a command is, once built."""
        return cache_folder() / "go" / f"{self.folder.name}-{self.key}" / command.name

    def build(self, command: Command, progress: Progress) -> bool:
        """Make sure that a command is built.

        Args:
            command: Which.
            progress: Told how it goes.

        Returns:
            Whether it had to be built.

        Raises:
            DevclusterError: There is no Go, or it fails.
        """
        target = self.binary(command)
        if target.exists():
            return False
        go = find_go()
        with _workshop(progress) as workshop:
            if target.exists():  # by whomever the lock was waited for
                return False
            target.parent.mkdir(exist_ok=True)
            with progress.step(f"{command.name}: built", starting=f"{command.name}: building"):
                workshop.run(go, self, command, target)
        return True


def required_version(go_mod: str, path: str) -> str | None:
    """The version that the text of a go.mod requires of a module, None if it requires none."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(path)}\s+(v\S+)", go_mod, re.MULTILINE)
    return found[1] if found else None


def find_go() -> Path:
    """The `go` command.

    Raises:
        DevclusterError: There is none.
    """
    found = shutil.which("go")
    if found is None:
        raise DevclusterError(
            "Go is needed to build Kubernetes, and there is no `go` on PATH. Install Go 1.24 or "
            f"newer (https://go.dev/dl), or copy {cache_folder()} from a machine that has built it."
        )
    return Path(found)


@dataclass(frozen=True)
class _Workshop:
    """The folder in which one build at a time goes on."""

    folder: Path

    @property
    def _record(self) -> Path:
        return self.folder / "building.json"

    def clean(self) -> None:
        """End and remove what a starter that was killed has left."""
        with suppress(FileNotFoundError):
            text = self._record.read_text(encoding="utf-8")
            ProcessRef(**json.loads(text)).stop(grace=2.0)
        self._record.unlink(missing_ok=True)
        for part in self.folder.glob("*/.*.part"):
            part.unlink()

    def run(self, go: Path, module: Module, command: Command, target: Path) -> None:
        """Build a command; it appears under its name when it is whole."""
        part = target.with_name(f".{command.name}.part")
        log = self.folder / "build.log"
        log.unlink(missing_ok=True)
        # A low priority: a cold build takes minutes, and people work on the same machine.
        nice = [found, "-n", "10"] if (found := shutil.which("nice")) else []
        process = spawn(
            [*nice, str(go), "build", *module.arguments, "-o", str(part), command.package],
            log=log,
            folder=module.folder,
            environment=_environment(),
            record=lambda ref: write_private(self._record, json.dumps(asdict(ref))),
        )
        try:
            if not process.wait(_BUILD_SECONDS):
                raise DevclusterError(f"{command.name} was not built within {_BUILD_SECONDS:g} s.")
            status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
            if status != 0:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise DevclusterError(
                    f"go build {command.package} failed with {status} in {module.folder}:\n"
                    + "\n".join(lines[-_TAIL:])
                )
            part.replace(target)
        finally:
            process.stop(grace=2.0)
            self.clean()


@contextmanager
def _workshop(progress: Progress) -> Iterator[_Workshop]:
    folder = cache_folder() / "go"
    with locked(folder / "lock", seconds=_BUILD_SECONDS, waiting=progress.note):
        workshop = _Workshop(folder)
        workshop.clean()
        yield workshop


def _environment() -> dict[str, str]:
    """This process's, without what would build for another machine or from other sources."""
    foreign = ("GOOS", "GOARCH", "GOWORK", "GOEXPERIMENT")
    ours = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**ours, "CGO_ENABLED": "0", "GOWORK": "off"}
