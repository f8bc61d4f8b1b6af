"""What a machine has and lacks, before anything is started."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.golang import find_go
from devcluster.paths import cache_folder
from devcluster.sizes import SIZES
from devcluster.state import Phase
from devcluster.tls import expires

# Measured: 3.0 GB of Go's build cache, 0.8 GB of modules, 0.3 GB of binaries.
_BUILD_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        well: Whether that is as it should be.
        text: What was found, and how to mend it.
    """

    well: bool
    text: str


def examine(cluster: Cluster, size: str) -> list[Finding]:
    """Look at the machine and at a cluster, without changing either.

    Args:
        cluster: It may run or not.
        size: What is to be started.
    """
    return [*_sources(size), *_cluster(cluster)]


def obstacles(size: str) -> list[str]:
    """Why a cluster cannot be started on this machine; nothing if it can."""
    return [finding.text for finding in _sources(size) if not finding.well]


def _sources(size: str) -> list[Finding]:
    cache = cache_folder()
    missing = [component.name for component in SIZES[size] if not component.is_built]
    if not missing:
        return [Finding(True, f"everything is built, in {cache}: Go is not needed")]
    findings = [Finding(True, f"to be built, into {cache}: {', '.join(missing)}")]
    try:
        findings.append(Finding(True, f"Go is at hand: {find_go()}"))
    except DevclusterError as error:
        findings.append(Finding(False, str(error)))
    free = shutil.disk_usage(_existing(cache)).free
    findings.append(
        Finding(
            free >= _BUILD_BYTES,
            f"{free / 2**30:.1f} GiB of disk are free for Go's caches and the binaries, "
            f"{_BUILD_BYTES / 2**30:.0f} are needed",
        )
    )
    return findings


def _cluster(cluster: Cluster) -> list[Finding]:
    try:
        phase, rows = cluster.phase, cluster.status()
    except DevclusterError as error:
        return [Finding(False, str(error))]
    where = cluster.folder.path
    if phase is None:
        return [Finding(True, f"no cluster in {where}")]
    if phase is not Phase.UP:
        return [Finding(False, f"the cluster in {where} is not whole: `up` or `down` cleans it")]
    ended = [row.component for row in rows if row.has_ended]
    if ended:
        text = f"of the cluster in {where}, {', '.join(ended)} ended: `up` starts that again"
        return [Finding(False, text)]
    until = expires((cluster.folder.pki / "ca.crt").read_bytes())
    return [
        Finding(True, f"the cluster in {where} runs"),
        Finding(
            until > datetime.now(UTC),
            f"its certificates hold until {until:%Y-%m-%d}; `down` and `up` make new ones",
        ),
    ]


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())
