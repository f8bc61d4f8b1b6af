"""What a service's processes printed, now and as it comes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kaptain_zen.exceptions import KaptainError
from kaptain_zen.model.ports import LogLine
from kaptain_zen.platform.local.output import LineSplitter
from kaptain_zen.platform.local.service_state import ServiceFolder
from kaptain_zen.platform.local.serving_process import tail as last_lines

_LOOK_AGAIN = 0.2


def read_logs(folder: ServiceFolder, *, tail: int | None, follow: bool) -> Iterator[LogLine]:
    """Read the logs of a service.

    Args:
        folder: The service's.
        tail: How many lines of each log, the last ones; all if None.
        follow: Whether to go on with what is printed from now on, until the service is gone.

    Returns:
        Lines, each with its source: `<service>/baseline`, `<service>/canary`, `<service>/router`.
    """
    logs = {path: _Log(path) for path in _sources(folder)}
    printed = []
    for path, source in _sources(folder).items():
        lines = logs[path].lines()
        kept = lines if tail is None else lines[max(0, len(lines) - tail) :]
        printed += [LogLine(source=source, text=text) for text in kept]
    return itertools.chain(printed, _followed(folder, logs) if follow else ())


def _followed(folder: ServiceFolder, logs: dict[Path, _Log]) -> Iterator[LogLine]:
    exists = True
    while exists:
        # The standard library offers no way to be told that a file has grown.
        time.sleep(_LOOK_AGAIN)
        exists = folder.file.exists()
        for path, source in _sources(folder).items():
            for text in logs.setdefault(path, _Log(path)).lines():
                yield LogLine(source=source, text=text)


@dataclass
class _Log:
    """One file, and how far it has been read."""

    path: Path
    position: int = 0

    def __post_init__(self) -> None:
        self._splitter = LineSplitter()

    def lines(self) -> list[str]:
        """Lines that have been completed since the last call."""
        try:
            with self.path.open("rb") as file:
                if self.position > self.path.stat().st_size:
                    # The server was started anew, with a new log.
                    self.position, self._splitter = 0, LineSplitter()
                file.seek(self.position)
                data = file.read()
        except FileNotFoundError:
            return []
        self.position += len(data)
        return [line.decode("utf-8", "replace") for line in self._splitter.feed(data)]


def _sources(folder: ServiceFolder) -> dict[Path, str]:
    """The logs that there are by now; a promotion makes the canary's the baseline's."""
    sources: dict[Path, str] = {}
    try:
        state = folder.read()
        deployment = state.record(folder.file).deployment if state else None
    except KaptainError:
        deployment = None
    if deployment and deployment.baseline:
        sources[folder.log(deployment.baseline.revision)] = f"{folder.name}/baseline"
    if deployment and deployment.canary:
        sources[folder.log(deployment.canary.revision)] = f"{folder.name}/canary"
    return {**sources, folder.router_log: f"{folder.name}/router"}


def last_line(log: Path) -> str:
    """The last line of a log that says something; blank if there is none."""
    return next((line.strip() for line in reversed(last_lines(log, 50)) if line.strip()), "")
