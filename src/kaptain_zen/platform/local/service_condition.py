"""Whether a service answers, and why not."""

from __future__ import annotations

from pathlib import Path

from kaptain_zen.model.record import ModelRecord
from kaptain_zen.platform.local.router_client import RouterClient, RouterError
from kaptain_zen.platform.local.service_logs import last_line
from kaptain_zen.platform.local.service_state import ServiceFolder, ServiceState
from kaptain_zen.platform.local.settling import STOPPED, routes

_STATUS_TIMEOUT = 1.0
_AGAIN = "Start it again, or deploy again."


def condition(
    folder: ServiceFolder, state: ServiceState, record: ModelRecord
) -> tuple[str, dict[str, int]]:
    """Look at a service.

    Args:
        folder: The service's.
        state: What it should be.
        record: The record in its annotation.

    Returns:
        Why it is not ready, blank if it is; and the requests answered so far, by revision.
    """
    if not state.router.ref.alive:
        return f"The router of {folder.name} has ended.{_said(folder.router_log)} {_AGAIN}", {}
    try:
        client = RouterClient(state.router.port, folder.token())
        status = client.status(timeout=_STATUS_TIMEOUT)
    except RouterError as error:
        return f"{error} {_AGAIN}", {}
    return _why_not_ready(folder, state, record, status.routes), status.answered


def _why_not_ready(
    folder: ServiceFolder,
    state: ServiceState,
    record: ModelRecord,
    routed: dict[tuple[str, int], int],
) -> str:
    if state.stopped:
        return STOPPED
    for server in state.servers:
        if not server.ref.alive:
            said = _said(folder.log(server.revision))
            return f"The server of revision {server.revision} has ended.{said} {_AGAIN}"
    if routed != routes(record.deployment, state.servers):
        return f"The router of {folder.name} does not serve what it should. {_AGAIN}"
    return ""


def _said(log: Path) -> str:
    line = last_line(log)
    return f" Its last words: {line}" if line else ""
