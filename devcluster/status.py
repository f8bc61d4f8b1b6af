"""What there is to see of a cluster: its components and their logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devcluster.component import ADDRESS, Component, Context


@dataclass(frozen=True)
class Row:
    """What `status` says of a component, in words.

    Attributes:
        component: Its name.
        version: Of the program.
        state: `process <id>`, `ended`, or `-` if it has no process.
        listens: Addresses.
        built: How long building it took when the cluster was made, or `cached`.
        started: How long it took to be ready when it was started last.
    """

    component: str
    version: str
    state: str
    listens: str
    built: str
    started: str

    @property
    def has_ended(self) -> bool:
        """Whether it should run, but does not."""
        return self.state == _ENDED


_ENDED = "ended"


def row(context: Context, component: Component) -> Row:
    """What there is to say of a component."""
    state, ref = context.state, context.process(component.name)
    running = "-"
    if ref:
        running = f"process {ref.pid}" if ref.alive else _ENDED
    ports = [f"{ADDRESS}:{state.ports[name]}" for name in component.ports if name in state.ports]
    built, started = state.built.get(component.name), state.started.get(component.name)
    return Row(
        component.name,
        component.version,
        running,
        " ".join(ports) or "-",
        "cached" if built is None else f"{built:.1f} s",
        "-" if started is None or ref is None else f"{started:.2f} s",
    )


def tail(log: Path, offset: int, lines: int) -> list[str]:
    """The last lines of a log.

    Args:
        log: The file; it need not exist.
        offset: Bytes at its beginning that are left out.
        lines: How many lines at most.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(offset, log.stat().st_size - lines * 2000))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
