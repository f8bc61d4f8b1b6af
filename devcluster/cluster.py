"""One cluster in one folder: up, down, status, and what tests do to its components."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from devcluster.component import Component, Context
from devcluster.components.apiserver import access_for, audit_log
from devcluster.errors import ApiError, DevclusterError
from devcluster.kubeconfig import Access
from devcluster.locks import locked
from devcluster.ports import free_port, is_free
from devcluster.progress import Progress
from devcluster.sizes import DEFAULT_SIZE, SIZES
from devcluster.state import Folder, Phase, State
from devcluster.status import Row, row, tail

# As long as a cold build of another `up` takes, which this one then profits from.
_LOCK_SECONDS = 3600.0
_LOOK_AGAIN = 0.05
_TAIL = 15


class Cluster:
    """A cluster, running or not.

    Args:
        path: Its folder.
        progress: Told what happens.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.folder = Folder(path)
        self._progress = progress or Progress(None)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder.kubeconfig

    @property
    def audit_log(self) -> Path:
        """One JSON object per request that the API server has answered."""
        return audit_log(self.folder)

    def up(self, size: str = DEFAULT_SIZE, ports: Mapping[str, int] | None = None) -> bool:
        """Make sure that the cluster runs.

        What an interrupted `up` or `down` has left is removed first. In a cluster that was up,
        components that have ended since are started again, with the data that they had.

        Args:
            size: A key of `SIZES`.
            ports: Ports that are wanted, by name; the others are chosen.

        Returns:
            Whether anything had to be done.

        Raises:
            DevclusterError: It cannot start, or runs with another size or other ports. What was
                started has been stopped, and its logs are still there.
        """
        wanted = dict(ports or {})
        self._check(size, wanted)
        self.folder.claim()
        with self._locked():
            self.folder.claim()  # again: another's `down` may have deleted it
            context = self._context()
            if context and context.state.phase is Phase.UP:
                self._compare(context.state, size, wanted)
                return self._revive(context)
            if context:
                self._progress.note("found an interrupted start or stop, cleaning up")
                self._stop_all(context)
                self.folder.clear()
            context = Context(self.folder, State(size), self.folder.write)
            self.folder.create(context.state)
            try:
                self._bring_up(context, wanted)
            except BaseException:
                self._stop_all(context)
                if not context.state.processes:  # so there are no logs to be read either
                    self.folder.remove()
                raise
        return True

    def down(self) -> bool:
        """Stop everything and delete the folder.

        Returns:
            Whether there was anything.
        """
        if self.folder.read() is None:
            return False
        with self._locked():
            context = self._context()
            if context is None:  # another's `down` was waited for
                self.folder.release()
                return False
            self._change(context, phase=Phase.STOPPING)
            with self._progress.step("stopped, and its folder deleted"):
                self._stop_all(context)
                self.folder.remove()
        return True

    def build(self, size: str = DEFAULT_SIZE) -> dict[str, float]:
        """Make sure that everything is built.

        Returns:
            Seconds per component that had to be built.
        """
        seconds = {}
        for component in SIZES[size]:
            before = time.monotonic()
            if component.build(self._progress):
                seconds[component.name] = time.monotonic() - before
        return seconds

    def status(self) -> list[Row]:
        """What runs, by component; nothing where there is no cluster."""
        context = self._context()
        return [row(context, component) for component in _parts(context)] if context else []

    @property
    def phase(self) -> Phase | None:
        """How far it has come; None where there is no cluster."""
        state = self.folder.read()
        return state.phase if state else None

    def start(self, name: str) -> None:
        """Start a component that has ended, and wait until it is ready."""
        with self._locked():
            context, component = self._part(name)
            ref = context.process(name)
            if not (ref and ref.alive):
                self._start(context, component)

    def stop(self, name: str, *, at_once: bool = False) -> None:
        """Stop a component, and nothing else.

        Args:
            name: Which.
            at_once: By SIGKILL: it gets no chance to end well.
        """
        with self._locked():
            context, component = self._part(name)
            component.stop(context, at_once=at_once)

    def user(self, name: str, groups: tuple[str, ...] = ()) -> Access:
        """A user of the API server who may do what roles allow to the name or the groups."""
        context = self._context()
        if context is None:
            raise DevclusterError(f"There is no cluster in {self.folder.path}.")
        return access_for(context, name, groups)

    # What follows does one thing each, and expects the lock to be held where it writes.

    def _check(self, size: str, ports: Mapping[str, int]) -> None:
        if size not in SIZES:
            raise DevclusterError(f"There is no size {size!r}; there is {', '.join(SIZES)}.")
        names = [name for component in SIZES[size] for name in component.ports]
        for name, port in ports.items():
            if name not in names:
                raise DevclusterError(f"There is no port {name!r}; there are {', '.join(names)}.")
            if not 0 < port < 2**16:
                raise DevclusterError(f"{port} is not a port number.")

    def _compare(self, state: State, size: str, ports: Mapping[str, int]) -> None:
        differs = [f"size {state.size}"] if state.size != size else []
        differs += [f"port {n}={state.ports[n]}" for n, p in ports.items() if state.ports[n] != p]
        if differs:
            raise DevclusterError(
                f"The cluster in {self.folder.path} runs with {', '.join(differs)}. Take it down "
                "first, or name another folder."
            )

    def _bring_up(self, context: Context, wanted: Mapping[str, int]) -> None:
        size = context.state.size
        self._change(context, built=self.build(size))
        self._change(context, ports=_choose_ports(SIZES[size], wanted))
        with self._progress.step("certificates and configuration written"):
            for component in SIZES[size]:
                component.prepare(context)
        for component in SIZES[size]:
            self._start(context, component)
        self._change(context, phase=Phase.UP)

    def _revive(self, context: Context) -> bool:
        ended = [
            component
            for component in _parts(context)
            if (ref := context.process(component.name)) and not ref.alive
        ]
        for component in ended:
            self._progress.note(f"{component.name} has ended, starting it again")
            component.build(self._progress)
            self._start(context, component)
        return bool(ended)

    def _start(self, context: Context, component: Component) -> None:
        before = time.monotonic()
        with self._progress.step(f"{component.name} {component.version}: ready"):
            component.start(context)
            self._await_ready(context, component)
        seconds = {**context.state.started, component.name: time.monotonic() - before}
        self._change(context, started=seconds)

    def _await_ready(self, context: Context, component: Component) -> None:
        deadline = time.monotonic() + component.seconds
        while True:
            try:
                reason = component.ready(context)
            except (OSError, ApiError) as error:
                reason = str(error)
            if reason is None:
                return
            ref = context.process(component.name)
            if ref and not ref.alive:
                raise DevclusterError(self._failure(component, "ended by itself"))
            if time.monotonic() > deadline:
                said = f"was not ready within {component.seconds:g} s: {reason}"
                raise DevclusterError(self._failure(component, said))
            # A server tells nobody that it is ready; it is asked.
            time.sleep(_LOOK_AGAIN)

    def _failure(self, component: Component, what: str) -> str:
        log = self.folder.log(component.name)
        lines = tail(log, 0, _TAIL)
        return "\n".join([f"{component.name} {what}. The end of {log}:", *lines])

    def _stop_all(self, context: Context) -> None:
        for component in reversed(_parts(context)):
            component.stop(context)
        # Whatever a record of another version of this tool knows besides.
        for ref in context.state.processes.values():
            ref.stop(grace=Component.grace)

    def _part(self, name: str) -> tuple[Context, Component]:
        context = self._context()
        for component in _parts(context) if context else ():
            if context and component.name == name:
                return context, component
        raise DevclusterError(f"There is no {name} in {self.folder.path}.")

    def _context(self) -> Context | None:
        state = self.folder.read()
        return Context(self.folder, state, self.folder.write) if state else None

    def _change(self, context: Context, **changes: object) -> None:
        context.state = replace(context.state, **changes)  # type: ignore[arg-type]  # by name
        context.write(context.state)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.folder.lock, seconds=_LOCK_SECONDS, waiting=self._progress.note):
            yield


def _parts(context: Context) -> tuple[Component, ...]:
    """The components; none where another version of this tool made a size that this one lacks."""
    return SIZES.get(context.state.size, ())


def _choose_ports(parts: tuple[Component, ...], wanted: Mapping[str, int]) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        if port in chosen.values() or not is_free(port):
            raise DevclusterError(f"Port {port} of 127.0.0.1, wanted for {name}, is in use.")
        chosen[name] = port
    for component in parts:
        for name in component.ports:
            if name not in chosen:
                chosen[name] = free_port(frozenset(chosen.values()))
    return chosen
