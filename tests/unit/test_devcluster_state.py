"""What devcluster writes down is read back as it was; folders of others are left alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from devcluster import kubeconfig
from devcluster.errors import DevclusterError
from devcluster.kubeconfig import Access
from devcluster.paths import cache_folder, write_private
from devcluster.processes import ProcessRef
from devcluster.progress import table
from devcluster.state import Folder, Phase, State
from devcluster.tls import Pair
from hypothesis import given
from hypothesis import strategies as st

_names = st.text(min_size=1, max_size=20)
_refs = st.builds(
    ProcessRef,
    pid=st.integers(1, 2**22),
    started=st.floats(0, 1e12),
    boot=st.text(max_size=36),
)
_seconds = st.dictionaries(_names, st.floats(0, 1e6))
_states = st.builds(
    State,
    size=_names,
    phase=st.sampled_from(Phase),
    ports=st.dictionaries(_names, st.integers(1, 65535)),
    processes=st.dictionaries(_names, _refs),
    built=_seconds,
    started=_seconds,
)


@given(_states)
def test_a_record_is_read_as_it_was_written(state: State) -> None:
    assert State.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"format": 2}),
        json.dumps({"format": 1}),
        json.dumps({"format": 1, "size": "a", "phase": "odd", "processes": {}}),
        json.dumps({"format": 1, "size": "a", "phase": "up", "processes": {"a": {"pid": 1}}}),
        json.dumps({"format": 1, "size": "a", "phase": "up", "processes": {}, "more": 1}),
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind; the message is the next one's
        State.from_json(text)
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DevclusterError, match="cannot be understood"):
        Folder(tmp_path).read()


def test_a_folder_is_made_filled_and_removed_but_not_what_belongs_to_others(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "cluster")
    assert folder.read() is None
    folder.claim()
    folder.create(State("small"))
    assert folder.read() == State("small")
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (folder.bin / "link").symlink_to(outside)
    folder.lock.touch()
    folder.remove()
    assert not folder.path.exists()
    assert outside.read_text() == "kept"


def test_a_folder_whose_removal_was_interrupted_is_still_known(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "cluster")
    folder.claim()
    folder.create(State("small", Phase.STOPPING))
    folder.clear()
    assert folder.read() == State("small", Phase.STOPPING)
    assert [path.name for path in folder.path.iterdir()] == ["state.json"]
    folder.claim()


def test_a_folder_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DevclusterError, match=r"thesis\.txt"):
        Folder(tmp_path).claim()


def test_private_files_are_private_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", ["", "relative"])
def test_the_cache_is_below_home_unless_xdg_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == tmp_path / ".cache" / "kaptain-zen-devcluster"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "kaptain-zen-devcluster"


_pems = st.binary(min_size=1, max_size=50)
_accesses = st.builds(
    Access,
    server=st.just("https://127.0.0.1:6443"),
    authority=st.none() | _pems,
    pair=st.none() | st.builds(Pair, certificate=_pems, key=_pems),
    token=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    namespace=st.from_regex(r"[a-z]{1,10}", fullmatch=True),
)


@given(access=_accesses)
def test_a_kubeconfig_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, access: Access
) -> None:
    path = access.write(tmp_path_factory.getbasetemp() / "round-trip")
    assert kubeconfig.read(path) == access
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _document(user: dict[str, object]) -> dict[str, object]:
    return {
        "current-context": "b",
        "contexts": [
            {"name": "a", "context": {"cluster": "other", "user": "other"}},
            {"name": "b", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://c", "certificate-authority": "ca.crt"}}
        ],
        "users": [{"name": "u", "user": user}],
    }


def test_files_that_a_kubeconfig_names_are_read_relative_to_it(tmp_path: Path) -> None:
    for name in ("ca.crt", "u.crt", "u.key", "token"):
        (tmp_path / name).write_text(f"{name}\n")
    user = {"client-certificate": "u.crt", "client-key": "u.key", "tokenFile": "token"}
    path = tmp_path / "config"
    path.write_text(json.dumps(_document(user)))
    pair = Pair(b"u.crt\n", b"u.key\n")
    assert kubeconfig.read(path) == Access("https://c", b"ca.crt\n", pair, "token")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no usable kubeconfig"),
        ("[]", "no usable kubeconfig"),
        ("current-context: a", "no usable kubeconfig"),
        (json.dumps(_document({"exec": {"command": "login"}})), "exec"),
        (json.dumps(_document({"client-certificate": "none.crt"})), "cannot be read"),
        (
            json.dumps(_document({})).replace("https://c", "http://c").replace("ca.crt", ""),
            "https",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "ca.crt").touch()
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(DevclusterError, match=said):
        kubeconfig.read(path)


def test_credentials_are_not_shown() -> None:
    access = Access("https://c", b"ca", Pair(b"crt", b"s3cr3t"), "t0ken")
    assert "s3cr3t" not in repr(access)
    assert "t0ken" not in repr(access)
    assert "s3cr3t" not in repr(access.pair)


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.from_regex(r"[a-z0-9.]{1,9}", fullmatch=True), min_size=n, max_size=n),
            min_size=1,
        )
    )
)
def test_tables_keep_every_cell_in_its_column(rows: list[list[str]]) -> None:
    lines = table(rows).splitlines()
    assert [line.split() for line in [lines[0], *lines[2:]]] == rows
    starts = {
        tuple(line.index(cell, sum(len(c) for c in row[:i])) for i, cell in enumerate(row))
        for line, row in zip(lines[2:], rows[1:], strict=True)
        if len(set(row)) == len(row)
    }
    assert all(len(start) == len(rows[0]) for start in starts)
