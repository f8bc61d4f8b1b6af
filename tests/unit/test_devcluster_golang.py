"""Go commands are built once per content; what a killed build has left is ended."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from devcluster.components.kubernetes import ETCD, MODULE, version_stamps
from devcluster.errors import DevclusterError
from devcluster.golang import Command, Module, required_version
from devcluster.progress import Progress
from devcluster.sizes import SIZES
from tests.processes import eventually, mentioning

_COMMAND = Command("tool", "example.com/tool", "example.com/tool")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """A module, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module m\n\nrequire example.com/tool v1.2.3\n")
    (folder / "go.sum").write_text("")
    return Module(folder, {"main.version": "v1"})


def _go(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a `go` before all others that does what a script says; $out is where it builds to."""
    binaries = folder / "bin"
    binaries.mkdir()
    find_out = 'while [ "$1" != -o ]; do shift; done; out=$2\n'
    (binaries / "go").write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{find_out}{script}\n")
    (binaries / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("require k8s.io/kubernetes v1.34.4", "v1.34.4"),
        ("require (\n\tk8s.io/kubernetes v1.34.4 // indirect\n)", "v1.34.4"),
        ("require k8s.io/kubernetes-more v1.0.0", None),
        ("replace k8s.io/kubernetes => k8s.io/other v1.0.0", None),
        ("// k8s.io/kubernetes v1.0.0", None),
        ("tool k8s.io/kubernetes/cmd/kubectl", None),
    ],
)
def test_versions_are_those_that_go_mod_requires(text: str, expected: str | None) -> None:
    assert required_version(f"module m\n\n{text}\n", "k8s.io/kubernetes") == expected


def test_what_go_mod_does_not_require_has_no_version(module: Module) -> None:
    assert module.version("example.com/tool") == "v1.2.3"
    with pytest.raises(DevclusterError, match=r"go\.mod does not require example\.com/none"):
        module.version("example.com/none")


def test_programs_of_kubernetes_know_their_version() -> None:
    stamps = version_stamps("v1.34.4")
    assert stamps["k8s.io/component-base/version.gitVersion"] == "v1.34.4"
    assert stamps["k8s.io/client-go/pkg/version.gitMinor"] == "34"
    assert "-X k8s.io/component-base/version.gitMajor=1" in MODULE.arguments[-1]


def test_go_mod_names_every_command_as_a_tool_and_replaces_like_kubernetes() -> None:
    text = (MODULE.folder / "go.mod").read_text()
    tools = text.partition("tool (")[2].partition(")")[0].split()
    commands = {c.command.package for size in SIZES.values() for c in size if hasattr(c, "command")}
    assert set(tools) == commands
    minor = MODULE.version("k8s.io/kubernetes").removeprefix("v1.")
    replaced = text.partition("replace (")[2].partition(")")[0].strip().splitlines()
    assert replaced
    for line in replaced:
        name, _, target, version = line.split()
        assert (target, version) == (name, f"v0.{minor}")
    assert MODULE.version(ETCD.versioned_by).startswith("v3.")


def test_the_key_changes_with_all_that_is_built_from(module: Module) -> None:
    def key(stamps: dict[str, str]) -> str:
        return Module(module.folder, stamps).key

    first = key({"a": "1"})
    assert key({"a": "1"}) == first
    assert key({"a": "2"}) != first
    (module.folder / "notes.txt").write_text("no source")
    assert key({"a": "1"}) == first
    (module.folder / "go.sum").write_text("changed")
    assert key({"a": "1"}) != first


def test_a_command_is_built_once(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go(tmp_path, monkeypatch, 'echo "$CGO_ENABLED $GOWORK ${GOOS-unset}" > "$out"')
    monkeypatch.setenv("GOOS", "plan9")
    said = io.StringIO()
    assert module.build(_COMMAND, Progress(said))
    assert not module.build(_COMMAND, Progress(said))
    assert (tmp_path / "runs").read_text() == "run\n"
    assert module.binary(_COMMAND).read_text() == "0 off unset\n"
    assert said.getvalue().splitlines()[0].strip() == "tool: building ..."
    assert said.getvalue().splitlines()[1].endswith("s  tool: built")
    again = Module(module.folder, {"main.version": "v2"})
    assert again.build(_COMMAND, Progress(None))


def test_a_build_that_fails_says_what_go_said_and_leaves_nothing(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go(tmp_path, monkeypatch, 'echo half > "$out"; echo "main.go:1: no such thing"; exit 3')
    with pytest.raises(DevclusterError, match=r"(?s)failed with 3 .*main\.go:1: no such thing"):
        module.build(_COMMAND, Progress(None))
    assert list(module.binary(_COMMAND).parent.iterdir()) == []


def test_without_go_it_is_said_what_to_do(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DevclusterError, match="Install Go"):
        module.build(_COMMAND, Progress(None))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_build_whose_starter_ends_does_not_go_on_for_ever(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    _go(tmp_path, monkeypatch, 'echo half > "$out"; sleep 1000')
    script = f"""
import signal
from pathlib import Path
from devcluster.cli import _terminate
from devcluster.golang import Command, Module
from devcluster.progress import Progress
signal.signal(signal.SIGTERM, _terminate)
Module(Path({str(module.folder)!r}), {module.stamps!r}).build(
    Command("tool", "example.com/tool", "example.com/tool"), Progress())
"""
    root = str(Path(__file__).parents[2])
    part = module.binary(_COMMAND).with_name(".tool.part")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    ) as starter:
        eventually(part.exists)
        starter.send_signal(number)
        starter.wait(20)
    if number is signal.SIGKILL:
        assert mentioning(tmp_path / "cache")
    (tmp_path / "bin" / "go").unlink()
    (tmp_path / "bin").rmdir()
    _go(tmp_path, monkeypatch, 'echo whole > "$out"')
    assert module.build(_COMMAND, Progress(None))
    assert module.binary(_COMMAND).read_text() == "whole\n"
    eventually(lambda: not mentioning(tmp_path / "cache"))
    assert not part.exists()
