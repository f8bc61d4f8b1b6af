"""A model of one script, trained the two ways that the local platform has."""

from __future__ import annotations

import ast
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.processes import eventually

from kaptain_zen.model.ports import LogLine, RunStatus, TrainRequest
from kaptain_zen.model.record import RunHandle
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.runs import Progress, RunFolder
from kaptain_zen.platform.local.trainer import LocalTrainer

# Quick to import, and enough to make a warm start worth while.
PRELOADED = "import psutil\n"


def model(framework: str = "sklearn", **properties: Any) -> ModelSpec:
    """A specification in which only what matters to a training is chosen."""
    chosen: dict[str, Any] = {
        "id": "dev/probe",
        "name": "Probe",
        "description": "A script that is run",
        "version": "1",
        "framework": framework,
        "framework_version": "1",
        "main_file": "training.py",
        "image_name": "probe",
        "base_image": "python",
    }
    return ModelSpec(**(chosen | properties))


@dataclass(eq=False)
class Bench:
    """A home, a folder for a model's files, and a trainer of one kind."""

    folder: Path
    warm: bool
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files.mkdir(parents=True, exist_ok=True)
        self.trainer = LocalTrainer(self.home, environment=self.environment, warm_start=self.warm)

    @property
    def home(self) -> LocalHome:
        return LocalHome(self.folder / "home")

    @property
    def files(self) -> Path:
        return self.folder / "model"

    @property
    def forks(self) -> bool:
        """Whether a warm start is possible: the script must be Python."""
        try:
            ast.parse((self.files / "training.py").read_bytes())
        except (SyntaxError, ValueError):
            return False
        return self.warm

    def run_folder(self, name: str) -> RunFolder:
        return RunFolder(self.home.runs / name)

    def progress(self, name: str) -> Progress:
        progress = self.run_folder(name).progress()
        assert progress is not None
        return progress

    def request(self, script: str, **properties: Any) -> TrainRequest:
        """A request to run a script."""
        spec = properties.pop("spec", None) or model()
        (self.files / spec.main_file).parent.mkdir(parents=True, exist_ok=True)
        (self.files / spec.main_file).write_text(PRELOADED + script)
        chosen: dict[str, Any] = {
            "name": f"run-{uuid.uuid4().hex[:8]}",
            "base_dir": self.files,
            "upload_uri": (self.folder / "models").as_uri(),
            "workers": 1,
        }
        return TrainRequest(spec=spec, **(chosen | properties))

    def submit(self, script: str, **properties: Any) -> RunHandle:
        return self.trainer.submit(self.request(script, **properties))

    def run(self, script: str, **properties: Any) -> tuple[RunStatus, list[str]]:
        """Run a script to its end; its lines come back without their source."""
        handle = self.submit(script, **properties)
        return self.finish(handle)

    def finish(self, handle: RunHandle) -> tuple[RunStatus, list[str]]:
        lines: list[LogLine] = []
        status = self.trainer.wait(handle, timeout=60, on_log=lines.append)
        assert self.progress(handle.name).start == ("fork" if self.forks else "exec")
        return status, [line.text for line in lines]

    def until(self, handle: RunHandle, text: str) -> None:
        """Wait until a run has printed something."""
        log = self.run_folder(handle.name).log
        eventually(lambda: log.exists() and text in log.read_text())


def at_work_in(folder: Path) -> list[str]:
    """Processes that have a folder as working folder, or a file of it open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        # Processes come and go, and some are not ours.
        with suppress(OSError):
            for link in (process / "cwd", *(process / "fd").iterdir()):
                with suppress(OSError):
                    if link.readlink().is_relative_to(folder):
                        found.append(f"{process.name}: {(process / 'cmdline').read_text()}")
                        break
    return found


@contextmanager
def bench_at(folder: Path, *, warm: bool = True, **environment: str) -> Iterator[Bench]:
    """A bench of which nothing is left at work when it is given up."""
    made = Bench(folder, warm=warm, environment=environment)
    yield made
    for status in made.trainer.runs():
        made.trainer.delete(status.handle)
    assert [path.name for path in made.home.runs.glob("*") if path.name[0] != "."] == []
    eventually(lambda: not at_work_in(folder))


@pytest.fixture(params=["exec", "warm"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench for either way to start trainings."""
    with bench_at(tmp_path, warm=request.param == "warm") as made:
        yield made
