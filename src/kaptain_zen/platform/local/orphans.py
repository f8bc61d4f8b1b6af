"""Finding what nobody needs any more: half-made services, processes and folders without one."""

from __future__ import annotations

import shutil
from contextlib import suppress

from kaptain_zen.exceptions import RecordFormatError, WorkloadTimeoutError
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.processes import ProcessRef
from kaptain_zen.platform.local.service_state import ServiceFolder, names
from kaptain_zen.platform.local.serving_process import dependants
from kaptain_zen.platform.local.settling import revisions, settle

_DRAIN = 5.0


def cleanup(home: LocalHome, *, dry_run: bool) -> list[str]:
    """Remove what is left of services that were broken off or are gone.

    A service that can be read stays, whether its processes run or not: it says what is deployed. A
    service that somebody is changing, or that cannot be read, is left alone.

    Args:
        home: The local platform's folder.
        dry_run: Whether to only say what would be removed.

    Returns:
        What was removed, one sentence each.
    """
    removed: list[str] = []
    unknown_state = False
    referenced: set[ProcessRef] = set()
    for name in names(home):
        folder = ServiceFolder(home, name)
        try:
            with folder.changing(timeout=0):
                removed += _cleaned(folder, dry_run=dry_run)
                state = folder.read()
        except (WorkloadTimeoutError, RecordFormatError):
            unknown_state = True
            continue
        if state:
            referenced.update(s.ref for s in (*state.servers, *state.retiring))
            referenced.add(state.router.ref)
        if dry_run:
            referenced.update(folder.journal().started)
    for lock in [] if dry_run else home.services.glob("*.lock"):
        # Left by a client that was killed before it made the service's folder. Whoever holds a
        # service that has no folder removes its lock.
        with suppress(WorkloadTimeoutError), ServiceFolder(home, lock.stem).changing(timeout=0):
            pass
    if not unknown_state:
        removed += _stop_orphans(home, referenced, dry_run=dry_run)
    return removed


def _cleaned(folder: ServiceFolder, *, dry_run: bool) -> list[str]:
    """One service's leftovers; the caller holds the service."""
    state = folder.read()
    found = []
    if state is None:
        found.append(f"{folder.path}: what is left of a service that was never complete, or gone")
    elif folder.unsettled:
        found.append(f"{folder.path}: a change that was broken off")
    started = folder.journal().started
    known = {state.router.ref, *(s.ref for s in state.servers)} if state else set()
    found += [f"process {r.pid} of {folder.name}" for r in started if r not in known and r.alive]
    if state is None or folder.unsettled:
        if not dry_run:
            settle(folder, timeout=_DRAIN)
        return found
    keep = {served.revision for served in revisions(state.record(folder.file).deployment)}
    with suppress(FileNotFoundError):
        for stray in sorted(folder.revisions.iterdir()):
            if stray.name not in keep:
                found.append(f"{stray}: a revision that nothing serves")
                if not dry_run:
                    shutil.rmtree(stray, ignore_errors=True)
    return found


def _stop_orphans(home: LocalHome, referenced: set[ProcessRef], *, dry_run: bool) -> list[str]:
    """Processes of this home that no service knows of.

    One whose client still runs may be about to become part of a service and is not touched.
    """
    stopped = []
    for ref, client_runs in dependants(home.root):
        if not client_runs and ref not in referenced:
            stopped.append(f"process {ref.pid}: belongs to no service")
            if not dry_run:
                ref.stop()
    return stopped
