"""Bringing a service from one state to another: all of it, or nothing.

In this order, so that a kill at any moment leaves what the next client can bring to an end:

1. files of new revisions; new processes, each noted in the journal before it is told what to do
2. wait until they answer; free them
3. the router's routes, in one step; `service.json`, in one step: from here on it is done
4. processes that serve no more: wait for their last answers, stop them; forget the journal
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from kaptain_zen.exceptions import WorkloadDeploymentError, WorkloadTimeoutError
from kaptain_zen.model.interrupts import undisturbed
from kaptain_zen.model.ports import ServiceProgress, Store
from kaptain_zen.model.record import ANNOTATION, ModelRecord, Served
from kaptain_zen.platform.local.health import Starting, wait_until_ready
from kaptain_zen.platform.local.limits import available_cpus, cpus_of
from kaptain_zen.platform.local.mlserver_settings import Runtime, runtime_for, write_settings
from kaptain_zen.platform.local.router_client import RouterClient
from kaptain_zen.platform.local.service_state import (
    RouterProcess,
    ServerProcess,
    ServiceFolder,
    ServiceState,
    new_version,
)
from kaptain_zen.platform.local.serving_process import (
    SPARES,
    Child,
    start_launcher,
    start_router,
    tail,
)
from kaptain_zen.platform.local.settling import ALL, revisions, routes, settle, weights

_ROUTER_START = 15.0
_HASTY_DRAIN = 2.0
_SHORTEST_DRAIN = 5.0

OnProgress = Callable[[ServiceProgress], None]


class Rollout:
    """One change of one service; the caller holds the service."""

    def __init__(
        self,
        folder: ServiceFolder,
        store: Store,
        *,
        timeout: float,
        began: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Prepare a change.

        Args:
            folder: The service's.
            store: Where models are downloaded from.
            timeout: Seconds until everything must answer.
            began: Time of `time.monotonic` that they are counted from; now if None.
            on_progress: Gets a row at every change.
        """
        self._folder = folder
        self._store = store
        self._timeout = timeout
        self._deadline = (time.monotonic() if began is None else began) + timeout
        self._on_progress = on_progress or (lambda _row: None)
        self._children: list[Child] = []

    def run(self, record: ModelRecord, before: ServiceState | None) -> ServiceState:
        """Make the service what a record's deployment says.

        Raises:
            WorkloadDeploymentError: A revision or the router did not start.
            WorkloadTimeoutError: It took too long.
        """
        latest = weights(record.deployment)[revisions(record.deployment)[-1].revision]
        prev, now = str(ALL - latest), str(latest)
        self._report("Unknown")
        try:
            state = self._change(record, before, lambda: self._report("Unknown", prev, now))
            settle(self._folder, timeout=max(_SHORTEST_DRAIN, self._deadline - time.monotonic()))
        except BaseException:
            # Whether it goes back or on is decided by what the state says now.
            with undisturbed():
                settle(self._folder, timeout=_HASTY_DRAIN)
            raise
        finally:
            for child in self._children:
                child.channel.close()
        self._report("True", prev, now, state.url)
        return state

    def _change(
        self, record: ModelRecord, before: ServiceState | None, on_started: Callable[[], None]
    ) -> ServiceState:
        deployment = record.deployment
        running = {s.revision: s for s in before.servers if s.ref.alive} if before else {}
        missing = [s for s in revisions(deployment) if s.revision not in running]
        runtime = runtime_for(record.spec.framework)
        self._folder.note()
        for served in missing:
            self._provide(served, runtime)
        self._check_time()
        starting = [self._start(served, runtime) for served in missing]
        router = self._router(before)
        on_started()
        wait_until_ready(starting, deadline=self._deadline, timeout=self._timeout)
        servers = tuple(
            running.get(served.revision)
            or next(
                ServerProcess(revision=s.revision, ref=s.child.ref, port=s.port)
                for s in starting
                if s.revision == served.revision
            )
            for served in revisions(deployment)
        )
        # Those that have ended as well: they may have left processes of their own behind.
        old = (*before.servers, *before.retiring) if before else ()
        state = ServiceState(
            model_id=record.spec.id,
            resource_version=new_version(),
            annotations={ANNOTATION: record.to_annotation()},
            router=router,
            servers=servers,
            retiring=tuple(s for s in old if s not in servers),
        )
        with undisturbed():
            for child in self._children:
                child.adopt()
            RouterClient(router.port, self._folder.token()).switch(routes(deployment, servers))
            self._folder.write(state)
        return state

    def _provide(self, served: Served, runtime: Runtime) -> None:
        """Bring a revision's files here, unless they are, and write its server's settings."""
        folder = self._folder.revision(served.revision)
        if not folder.exists():
            unfinished = folder.with_name(f".{served.revision}")
            shutil.rmtree(unfinished, ignore_errors=True)
            self._folder.home.ensure(unfinished / "model")
            try:
                self._store.download(served.uri, unfinished / "model")
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        write_settings(
            folder,
            folder / "model",
            name=self._folder.name,
            served=served,
            runtime=runtime,
            uri=served.uri,
        )

    def _start(self, served: Served, runtime: Runtime) -> Starting:
        home = self._folder.home.root
        cpus = cpus_of(served.resources.cores)
        threads = cpus or len(available_cpus()) or os.cpu_count() or 1
        child = SPARES.take(runtime, home=home) or start_launcher(
            runtime, home=home, threads=threads
        )
        folder, log = self._folder.revision(served.revision), self._folder.log(served.revision)
        log.unlink(missing_ok=True)
        self._noted(child)
        child.channel.send(
            {
                "serve": {
                    "folder": str(folder),
                    "artifact": str(folder / "model"),
                    "log": log.name,
                    "threads": threads,
                    "memory": served.resources.memory_bytes,
                }
            }
        )
        return Starting(self._folder.name, served.revision, child, log)

    def _router(self, before: ServiceState | None) -> RouterProcess:
        """The router that runs, or a new one on the port of the last one."""
        if before and before.router.ref.alive:
            return before.router
        self._folder.token()
        port = before.router.port if before else 0
        log = self._folder.router_log
        child = start_router(self._folder.router, home=self._folder.home.root, port=port, log=log)
        self._noted(child)
        try:
            message = child.channel.receive(timeout=_ROUTER_START) or {"error": child.ended()}
        except TimeoutError:
            message = {"error": f"it did not answer within {_ROUTER_START:g} s"}
        if "error" in message:
            lines = "\n".join(["", *tail(log, 5)])
            where = f" on port {port}, which is part of the service's URL" if port else ""
            raise WorkloadDeploymentError(
                f"The router of {self._folder.name} could not be started{where}: "
                f"{message['error']}. Free what it needs; or undeploy the model and deploy it "
                f"anew, under another URL.{lines}"
            )
        return RouterProcess(ref=child.ref, port=message["port"])

    def _noted(self, child: Child) -> None:
        """Write down that a process runs; until then, it ends when this process is killed."""
        self._children.append(child)
        self._folder.note(*(known.ref for known in self._children))

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise WorkloadTimeoutError(
                f"The model of {self._folder.name} was not here within {self._timeout:g} s. Give "
                f"it a longer timeout."
            )

    def _report(self, ready: str, prev: str = "", latest: str = "", url: str = "") -> None:
        self._on_progress(
            ServiceProgress.model_validate(
                {
                    "name": self._folder.name,
                    "ready": ready,
                    "prev": prev,
                    "latest": latest,
                    "url": url,
                }
            )
        )
