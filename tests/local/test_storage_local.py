"""What only local folders have: links, locks, permissions, and a disk that says no."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.local.storage_support import put_tree, store_at, tree_of

from kaptain_zen.exceptions import ObjectNotFoundError, StorageError
from kaptain_zen.storage.local import LocalStore
from kaptain_zen.storage.uri import join


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root.as_uri())


class TestUris:
    @pytest.mark.parametrize("name", ["with blank", "per%cent", "ü", "a#b", "a?b"])
    def test_a_folder_may_be_written_with_or_without_escapes(
        self, tmp_path: Path, name: str
    ) -> None:
        escaped = store_at((tmp_path / name).as_uri())
        escaped.write(f"{escaped.base_uri}/dev/x", b"1")
        plain = store_at(f"file://{tmp_path}/{name.replace('%', '%25')}")
        assert plain.read(f"{plain.base_uri}/dev/x")[0] == b"1"
        assert (tmp_path / name / "dev" / "x").read_bytes() == b"1"

    def test_a_slash_cannot_be_smuggled_in(self, tmp_path: Path, store: LocalStore) -> None:
        put_tree(tmp_path, {"secret": b""})
        for tail in ("..%2Fsecret", "%2e%2e/secret", "a/..%2f..%2fsecret"):
            with pytest.raises(Exception, match=r"'\.\.'"):
                store.read(f"{store.base_uri}/{tail}")


class TestLinks:
    @pytest.mark.parametrize("target", ["..", "/etc", "loop"])
    def test_no_link_leads_out_of_the_store(
        self, root: Path, store: LocalStore, target: str
    ) -> None:
        root.mkdir()
        (root / "loop").symlink_to(target)
        for action in (
            lambda uri: store.write(uri, b""),
            store.read,
            store.list,
            store.delete,
            store.fingerprint,
            lambda uri: store.upload(Path(__file__).parent, uri),
        ):
            with pytest.raises(StorageError, match="symbolic link"):
                action(join(store.base_uri, "loop/passwd"))

    def test_the_store_itself_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "link").symlink_to("elsewhere")
        store = LocalStore((tmp_path / "link").as_uri())
        store.check()
        store.write(join(store.base_uri, "a/x"), b"")
        assert tree_of(tmp_path / "elsewhere") == {"a/x": b""}

    def test_deleting_removes_links_but_not_what_they_lead_to(
        self, tmp_path: Path, root: Path, store: LocalStore
    ) -> None:
        mine = put_tree(tmp_path / "mine", {"x": b""})
        put_tree(root / "a", {"y": b""})
        (root / "a" / "link").symlink_to(mine)
        assert store.delete(join(store.base_uri, "a")) >= 1
        assert tree_of(mine) == {"x": b""}
        (root / "link").symlink_to(root / "nothing")
        with pytest.raises(StorageError, match="symbolic link"):
            store.delete(join(store.base_uri, "link"))

    def test_a_link_among_objects_is_reported(self, root: Path, store: LocalStore) -> None:
        put_tree(root / "a", {"y": b""})
        (root / "a" / "link").symlink_to("y")
        with pytest.raises(StorageError, match=r"link.* is a symbolic link"):
            store.list(join(store.base_uri, "a"))


NOBODY = 65534
AS_NOBODY = f"""
import os, sys
from kaptain_zen.exceptions import StorageError
from kaptain_zen.storage.local import LocalStore
store = LocalStore(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid({NOBODY})
for action in (store.check, lambda: store.write(sys.argv[1] + "/a/x", b"")):
    try:
        action()
    except StorageError as error:
        print(error)
"""


class TestFoldersThatRefuse:
    def test_a_folder_that_is_not_ours_to_write(self, tmp_path: Path) -> None:
        folder = tmp_path / "read-only"
        folder.mkdir(mode=0o555)
        parents = [p for p in tmp_path.parents if "pytest-of" in str(p)]
        modes = {p: p.stat().st_mode for p in (tmp_path, *parents)}
        try:
            for parent in modes:
                parent.chmod(0o755)
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, folder.as_uri()],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        finally:
            for parent, mode in modes.items():
                parent.chmod(mode)
        said = done.stdout.splitlines()
        assert len(said) == 2
        for line in said:
            assert line.startswith(folder.as_uri())
            assert "Permission denied" in line
            assert "Choose a folder that you may write to" in line
        assert list(folder.iterdir()) == []

    def test_a_folder_below_a_file(self, tmp_path: Path) -> None:
        put_tree(tmp_path, {"file": b""})
        store = store_at((tmp_path / "file" / "models").as_uri())
        for action in (
            store.check,
            lambda: store.write(f"{store.base_uri}/x", b""),
            lambda: store.upload(Path(__file__).parent, store.base_uri),
        ):
            with pytest.raises(StorageError, match="A part of the path is a file"):
                action()
        assert store.list(store.base_uri) == []
        assert tree_of(tmp_path) == {"file": b""}

    @pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no sysfs on this system")
    def test_a_file_system_that_nobody_may_write_to(self) -> None:
        with pytest.raises(StorageError, match="Choose a folder that you may write to"):
            store_at("file:///sys/kaptain/models").check()

    def test_a_name_that_is_too_long(self, store: LocalStore, root: Path) -> None:
        with pytest.raises(StorageError, match="Choose a shorter name"):
            store.write(join(store.base_uri, "new", "n" * 300), b"")
        assert not root.exists()

    def test_an_object_where_a_folder_is(self, store: LocalStore, root: Path) -> None:
        store.write(join(store.base_uri, "a/b"), b"")
        for condition in ({}, {"new": True}):
            with pytest.raises(StorageError, match="could not be written"):
                store.write(join(store.base_uri, "a"), b"", **condition)
        assert tree_of(root) == {"a/b": b""}


class TestKilledAndSuspended:
    def test_a_lock_that_is_never_let_go_is_reported(
        self, store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kaptain_zen.storage.local._LOCK_SECONDS", 0.3)
        holder = (
            "import sys, fcntl\n"
            "file = open(sys.argv[1], 'w')\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        root.mkdir()
        lock = root / ".kaptain-zen-lock"
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(StorageError, match="locked by another process"):
                store.write(join(store.base_uri, "x"), b"")
        finally:
            process.kill()
            process.communicate()
        store.write(join(store.base_uri, "x"), b"after it died")
        assert tree_of(root) == {"x": b"after it died"}

    def test_a_killed_upload_shows_nothing_and_is_removed_with_its_folder(
        self, store: LocalStore, root: Path, tmp_path: Path
    ) -> None:
        source = put_tree(tmp_path / "source", {"a": b"1"})
        # A file that cannot be copied in a moment: sparse, so that it takes no room as a source.
        with (source / "z").open("wb") as file:
            file.truncate(2**31)
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from kaptain_zen.storage.local import LocalStore\n"
            "LocalStore(sys.argv[1]).upload(Path(sys.argv[2]), sys.argv[1])\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, store.base_uri, str(source)])
        deadline = time.monotonic() + 60
        while not list(root.glob(".kaptain-zen-*/a")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert store.list(store.base_uri) == []
        with pytest.raises(ObjectNotFoundError):
            store.fingerprint(store.base_uri)
        assert store.delete(store.base_uri) == 0
        assert not root.exists()

    def test_who_lists_and_writes_is_not_disturbed_by_who_deletes(self, store: LocalStore) -> None:
        folder = join(store.base_uri, "a")
        script = (
            "import sys\n"
            "from kaptain_zen.storage.local import LocalStore\n"
            "store = LocalStore(sys.argv[1])\n"
            "for number in range(300):\n"
            "    store.delete(sys.argv[2])\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, store.base_uri, folder])
        sizes = set()
        while process.poll() is None:
            for name in ("b/1", "b/2", "3"):
                store.write(join(folder, name), b"")
            sizes.add(len(store.list(folder)))
        assert process.returncode == 0
        assert len(sizes) > 1

    def test_a_reader_sees_the_old_or_the_new_one(self, store: LocalStore) -> None:
        uri = join(store.base_uri, "record.json")
        script = (
            "import sys\n"
            "from kaptain_zen.storage.local import LocalStore\n"
            "store = LocalStore(sys.argv[1])\n"
            "for number in range(300):\n"
            "    store.write(sys.argv[2], b'%d' % (number % 10) * 100_000)\n"
        )
        store.write(uri, b"0" * 100_000)
        process = subprocess.Popen([sys.executable, "-c", script, store.base_uri, uri])
        seen = set()
        while process.poll() is None:
            data, _ = store.read(uri)
            assert len(data) == 100_000
            assert len(set(data)) == 1
            seen.add(data[:1])
        assert process.returncode == 0
        assert len(seen) > 1


def test_files_get_the_permissions_that_the_user_wants(store: LocalStore, root: Path) -> None:
    before = os.umask(0o027)
    try:
        store.write(join(store.base_uri, "x"), b"")
        store.copy(store.base_uri, store.base_uri.replace("models", "copy"))
    finally:
        os.umask(before)
    for path in (root / "x", root.parent / "copy" / "x"):
        assert path.stat().st_mode & 0o777 == 0o640
