"""`up`, `down` and what happens between: nothing is left behind, however they end."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from devcluster import kubeconfig
from devcluster.api import Api
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.ports import free_port, is_free
from devcluster.state import Folder, Phase
from tests.kubernetes_api import require_devcluster
from tests.processes import eventually, mentioning

_ROOT = Path(__file__).parents[2]
_SERVERS = ["etcd", "kube-apiserver", "kube-controller-manager"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A folder for a cluster; whatever a test leaves in it is taken down."""
    require_devcluster()
    folder = tmp_path / "cluster"
    yield folder
    Cluster(folder).down()
    assert not mentioning(folder)


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "devcluster", *map(str, arguments)]


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments), cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def _servers(folder: Path) -> list[str]:
    """Programs that run for a cluster, apart from the command itself."""
    found = []
    for process in mentioning(folder):
        with suppress(psutil.Error):
            found.append(Path(process.exe()).name)
    return sorted(name for name in found if name in _SERVERS)


def _listening(folder: Path) -> set[int]:
    ports = set()
    for process in mentioning(folder):
        with suppress(psutil.Error):
            connections = process.net_connections(kind="tcp")
            ports |= {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return ports


def test_up_shows_what_runs_and_down_leaves_nothing(state: Path) -> None:
    before = set(state.parent.iterdir())
    began = time.monotonic()
    up = _run("up", "--state", state)
    assert up.returncode == 0, up.stderr
    assert time.monotonic() - began < 60  # a busy machine; the documentation has the usual time
    for name in (*_SERVERS, "kubectl", f"export KUBECONFIG={state / 'kubeconfig'}"):
        assert name in up.stdout
    assert _servers(state) == _SERVERS
    listening = _listening(state)
    assert len(listening) == 3  # the API server, and etcd for clients and for peers

    again = _run("up", "--state", state)
    assert (again.returncode, "already running" in again.stderr) == (0, True)
    assert _run("status", "--state", state).returncode == 0

    down = _run("down", "--state", state)
    assert down.returncode == 0, down.stderr
    assert not mentioning(state)
    assert all(is_free(port) for port in listening)
    assert set(state.parent.iterdir()) == before
    assert _run("down", "--state", state).returncode == 0
    assert _run("status", "--state", state).returncode == 1


def test_keys_and_tokens_are_their_owners_alone(state: Path) -> None:
    Cluster(state).up()
    readable = [
        str(path)
        for path in (state, *state.rglob("*"))
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert not readable


def test_servers_listen_on_loopback_only_and_are_closed_to_strangers(state: Path) -> None:
    Cluster(state).up()
    addresses = set()
    for process in mentioning(state):
        connections = process.net_connections(kind="inet")
        addresses |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    # A certificate of the cluster, even the administrator's, does not open etcd.
    admin = kubeconfig.read(state / "kubeconfig")
    etcd = f"https://127.0.0.1:{_record(state)['ports']['etcd']}"
    stranger = kubeconfig.Access(etcd, (state / "pki" / "etcd-ca.crt").read_bytes(), admin.pair)
    with pytest.raises(OSError, match=r"(?i)eof|alert|reset|broke"):
        Api(stranger).request("GET", "/readyz")


def _record(folder: Path) -> dict[str, dict[str, int]]:
    record: dict[str, dict[str, int]] = json.loads((folder / "state.json").read_text())
    return record


@pytest.mark.parametrize(
    "reached", ["the folder", "etcd", "kube-apiserver", "kube-controller-manager"]
)
def test_a_killed_up_is_cleaned_by_the_next(state: Path, reached: str) -> None:
    first = subprocess.Popen(_command("up", "--state", state), cwd=_ROOT, stderr=subprocess.DEVNULL)

    def has_come_so_far() -> bool:
        try:
            return reached == "the folder" or reached in _record(state)["processes"]
        except FileNotFoundError:
            return False

    try:
        eventually(lambda: state.exists() and has_come_so_far(), seconds=60)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    second = _run("up", "--state", state)
    assert second.returncode == 0, second.stderr
    assert _servers(state) == _SERVERS
    assert Api(kubeconfig.read(state / "kubeconfig")).request("GET", "/readyz") == "ok"


def test_down_cleans_a_killed_up_as_well(state: Path) -> None:
    first = subprocess.Popen(_command("up", "--state", state), cwd=_ROOT, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: "kube-apiserver" in _servers(state), seconds=60)
    finally:
        first.kill()
        first.wait()
    assert "interrupted" in _run("status", "--state", state).stdout
    assert _run("down", "--state", state).returncode == 0
    assert not mentioning(state)
    assert not state.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_up_stops_what_it_started(
    state: Path, number: signal.Signals, code: int
) -> None:
    first = subprocess.Popen(_command("up", "--state", state), cwd=_ROOT, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: "kube-apiserver" in _servers(state), seconds=60)
        first.send_signal(number)
        assert first.wait(30) == code
    finally:
        first.kill()
        first.wait()
    assert not _servers(state)


def test_two_ups_at_once_make_one_cluster(state: Path) -> None:
    both = [
        subprocess.Popen(
            _command("up", "--state", state), cwd=_ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("already running" in text for text in said) == 1
    assert sum("waiting for process" in text for text in said) == 1
    assert _servers(state) == _SERVERS


def test_up_starts_again_what_has_ended_and_keeps_the_data(state: Path) -> None:
    cluster = Cluster(state)
    cluster.up()
    api = Api(kubeconfig.read(cluster.kubeconfig))
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "kept"}})
    for server in _SERVERS:
        cluster.stop(server, at_once=True)
    assert not mentioning(state)
    assert [row.state for row in cluster.status()][:3] == ["ended"] * 3
    assert _run("status", "--state", state).returncode == 1
    assert cluster.up()
    assert not cluster.up()
    assert api.request("GET", "/api/v1/namespaces/kept")["status"]["phase"] == "Active"


def test_a_wanted_port_is_taken_and_a_busy_one_refused_before_anything_starts(state: Path) -> None:
    port = free_port()
    assert _run("up", "--state", state, "--port", f"apiserver={port}").returncode == 0
    assert kubeconfig.read(state / "kubeconfig").server == f"https://127.0.0.1:{port}"
    other = _run("up", "--state", state, "--port", f"apiserver={port + 1}")
    assert (other.returncode, "Take it down first" in other.stderr) == (1, True)
    second = state.with_name("second")
    try:
        busy = _run("up", "--state", second, "--port", f"apiserver={port}")
        assert (busy.returncode, f"Port {port}" in busy.stderr) == (1, True)
        assert not mentioning(second)
    finally:
        Cluster(second).down()


def test_a_server_that_cannot_start_is_explained_by_its_log(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devcluster.components import apiserver

    monkeypatch.setattr(apiserver, "_SERVICES", "no network")
    explained = r"(?s)kube-apiserver ended by itself.*service-cluster-ip-range.* is not a valid"
    with pytest.raises(DevclusterError, match=explained):
        Cluster(state).up()
    assert not mentioning(state)
    assert Cluster(state).phase is Phase.STARTING
    monkeypatch.undo()
    Cluster(state).up()


def test_a_folder_with_other_things_is_left_alone(state: Path) -> None:
    state.mkdir()
    (state / "thesis.txt").write_text("precious")
    refused = _run("up", "--state", state)
    assert (refused.returncode, "thesis.txt" in refused.stderr) == (1, True)
    assert _run("down", "--state", state).returncode == 0
    assert [path.name for path in state.iterdir()] == ["thesis.txt"]


def test_what_came_from_another_environment_stays_out(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_NAME", "foreign")
    monkeypatch.setenv("A_SECRET", "s3cr3t")
    Cluster(state).up()
    for process in mentioning(state):
        assert set(process.environ()) <= {"PATH", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"}


def test_a_process_that_was_given_the_id_of_an_old_one_is_left_alone(state: Path) -> None:
    cluster = Cluster(state)
    cluster.up()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as innocent:
        try:
            folder = Folder(state)
            record = folder.read()
            assert record
            ended = record.processes["kube-controller-manager"]
            ended.stop(grace=10)
            # As if the system had given the id away again.
            reused = type(ended)(innocent.pid, ended.started, ended.boot)
            folder.write(record.with_process("kube-controller-manager", reused))
            cluster.down()
            assert innocent.poll() is None
        finally:
            os.kill(innocent.pid, signal.SIGKILL)
