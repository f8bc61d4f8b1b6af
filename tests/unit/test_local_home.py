"""The home's files and locks, and processes that are found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.processes import eventually

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.local.home import LocalHome, locked, read_json, write_json
from kaptain_zen.platform.local.processes import ProcessRef, group_members

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_the_home_is_the_argument_or_the_variable_or_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAPTAIN_ZEN_HOME", str(tmp_path / "variable"))
    assert LocalHome.resolve(tmp_path / "argument").root == tmp_path / "argument"
    assert LocalHome.resolve().root == tmp_path / "variable"
    monkeypatch.delenv("KAPTAIN_ZEN_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalHome.resolve().root == tmp_path / ".kaptain-zen"
    assert LocalHome.resolve().models_uri == f"file://{tmp_path}/.kaptain-zen/models"
    assert list(tmp_path.iterdir()) == []


def test_folders_are_the_owner_s_alone(tmp_path: Path) -> None:
    home = LocalHome(tmp_path / "home")
    assert home.ensure(home.runs).stat().st_mode & 0o777 == 0o700
    assert home.ensure(home.runs) == home.runs


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    home = LocalHome(tmp_path / "home")
    with pytest.raises(ConfigurationError, match="KAPTAIN_ZEN_HOME"):
        home.ensure(home.runs)
    assert read_json(home.runs / "x.json") is None


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_comes_back(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, [0] * 1000)
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            value = json.loads(path.read_bytes())
            assert len(value) == 1000
            assert len(set(value)) == 1

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        for number in range(200):
            write_json(path, [number] * 1000)
        over.set()
        reading.result()


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", object())
    assert read_json(tmp_path / "file.json") == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lock_is_held_by_one_and_freed_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import pathlib, sys, time\nfrom kaptain_zen.platform.local.home import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder, holder.stdout as output:
        assert output.readline() == "held\n"
        with locked(path, blocking=False) as held:
            assert not held
        holder.kill()
        with locked(path) as held:
            assert held
            with locked(path, blocking=False) as again:
                assert not again


@pytest.fixture
def family() -> ProcessRef:
    """A process in its own session with a child, neither of which ends by being asked."""
    script = (
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    with leader.stdout as output:
        output.readline()
    threading.Thread(target=leader.wait, daemon=True).start()
    return ProcessRef.of(leader.pid)


def test_stopping_a_process_stops_its_group(family: ProcessRef) -> None:
    members = group_members(family)
    assert len(members) == 1
    family.stop(grace=0.3)
    assert not family.alive
    # Its own parent did not bury it; the system does.
    eventually(lambda: not any(member.is_running() for member in members))
    family.stop()


def test_a_group_whose_leader_is_gone_is_still_found(family: ProcessRef) -> None:
    os.kill(family.pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(family.pid))
    assert len(group_members(family)) == 1
    family.stop(grace=1)
    assert group_members(family) == []


def test_a_process_that_got_an_old_id_is_left_alone(family: ProcessRef) -> None:
    stale = family.model_copy(update={"started": family.started - 1})
    assert not stale.alive
    assert group_members(stale) == []
    stale.stop(grace=0.1)
    assert family.alive
    family.stop(grace=0.1)
