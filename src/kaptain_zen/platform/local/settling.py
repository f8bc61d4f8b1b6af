"""Bringing a service's routes, processes and folders to what its state says."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from kaptain_zen.model.record import Deployment, Served
from kaptain_zen.platform.local.processes import ProcessRef
from kaptain_zen.platform.local.router_client import RouterClient, RouterError
from kaptain_zen.platform.local.service_state import ServerProcess, ServiceFolder, ServiceState

_log = logging.getLogger("kaptain_zen")
STOPPED = "This service is stopped. Start it again to ask for predictions."
ALL = 100


def weights(deployment: Deployment) -> dict[str, int]:
    """Percentage of requests by revision."""
    share = deployment.canary_percentage or 0
    wanted = {}
    if deployment.baseline:
        wanted[deployment.baseline.revision] = ALL - share
    if deployment.canary:
        wanted[deployment.canary.revision] = share
    return wanted


def routes(
    deployment: Deployment, servers: tuple[ServerProcess, ...]
) -> dict[tuple[str, int], int]:
    """The router's routes for a deployment."""
    ports = {server.revision: server.port for server in servers}
    if not set(weights(deployment)) <= set(ports):
        return {}
    return {(revision, ports[revision]): w for revision, w in weights(deployment).items()}


def revisions(deployment: Deployment) -> list[Served]:
    """Baseline and canary, as far as there are."""
    return [served for served in (deployment.baseline, deployment.canary) if served]


def settle(folder: ServiceFolder, *, timeout: float) -> None:
    """Bring a service's routes, processes and folders to what its state says.

    Done at the end of every change and after every failure; and by the next client when the one
    that made the change was killed. The caller holds the service.

    Args:
        folder: The service's.
        timeout: Seconds that requests under way get.

    Raises:
        RecordFormatError: The state cannot be read; nothing was touched.
    """
    state = folder.read()
    started = folder.journal().started
    if state is None:
        _stop(started)
        folder.remove()
        return
    deployment = state.record(folder.file).deployment
    if state.stopped:
        _settle_router(folder, state, {}, timeout, STOPPED)
    else:
        _settle_router(folder, state, routes(deployment, state.servers), timeout)
    known = {state.router.ref, *(server.ref for server in state.servers)}
    _stop([ref for ref in started if ref not in known])
    if state.retiring:
        _stop([server.ref for server in state.retiring])
        folder.write(state.model_copy(update={"retiring": ()}))
    folder.remove_revisions(keep={served.revision for served in revisions(deployment)})
    folder.settle()


def _settle_router(
    folder: ServiceFolder,
    state: ServiceState,
    wanted: dict[tuple[str, int], int],
    timeout: float,
    message: str = "",
) -> None:
    """Have the router do what the state says, and wait until what it no longer uses is idle."""
    if not state.router.ref.alive:
        return
    client = RouterClient(state.router.port, folder.token())
    deadline = time.monotonic() + timeout
    try:
        routed = client.status().routes
        if routed != wanted:
            client.switch(wanted, message=message)
        leaving = {*routed, *((s.revision, s.port) for s in state.retiring)} - set(wanted)
        for revision, _ in leaving:
            left = client.drain(revision, timeout=max(0.1, deadline - time.monotonic()))
            if left:
                _log.warning(
                    "Revision %s of %s still had %d requests under way after %g s; they are cut "
                    "off.",
                    revision,
                    folder.name,
                    left,
                    timeout,
                )
    except RouterError as error:
        _log.warning("Service %s: %s", folder.name, error)


def close(folder: ServiceFolder, state: ServiceState, *, timeout: float) -> None:
    """Have the router take no new requests, and wait for the last answers.

    Args:
        folder: The service's.
        state: Its state.
        timeout: Seconds that requests under way get.
    """
    _settle_router(folder, state, {}, timeout, "This service is being deleted.")


def _stop(refs: Iterable[ProcessRef]) -> None:
    """Stop processes, all at the same time: MLServer takes its time to end."""
    listed = list(refs)
    if listed:
        with ThreadPoolExecutor(max_workers=len(listed)) as pool:
            list(pool.map(ProcessRef.stop, listed))
