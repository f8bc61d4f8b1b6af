"""What a store promises, on local folders and on S3 alike."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.local.storage_support import put_tree, store_at, tree_of
from tests.s3_server import S3Server

from kaptain_zen.exceptions import (
    ConfigurationError,
    ModelValidationException,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
)
from kaptain_zen.model.ports import Store
from kaptain_zen.storage.uri import join, relative
from kaptain_zen.training.uris import legal_name


@dataclass(frozen=True)
class Place:
    """A store, and a folder in it that nobody else uses."""

    store: Store
    folder: str
    environment: dict[str, str]

    def new_folder(self) -> str:
        return join(self.folder, uuid4().hex)


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        folder = (tmp_path / "the store").as_uri()
        return Place(store_at(folder), folder, {})
    server: S3Server = request.getfixturevalue("s3_server")
    folder = request.getfixturevalue("s3_folder")
    return Place(store_at(folder, server.provider), folder, server.environment)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put_tree(
        tmp_path / "source",
        {"model.joblib": b"weights", "a b/ü.txt": b"", "a b/c/d%20#?+&=.bin": b"\x00\xff"},
    )


names = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    .filter(legal_name)
    .filter(lambda name: "/" not in name and not name.startswith(".kaptain-zen-"))
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
several = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def trees(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[str, bytes]]:
    # A name cannot be a file and a folder; the top part alone decides which it is.
    return st.dictionaries(names, values, min_size=1, max_size=4).flatmap(
        lambda tree: st.builds(
            lambda prefixes: {
                f"{prefix}{name}": data
                for prefix, (name, data) in zip(prefixes, tree.items(), strict=True)
            },
            st.lists(
                st.sampled_from(["", "in a folder/", "ö/ß/"]),
                min_size=len(tree),
                max_size=len(tree),
            ),
        )
    )


class TestReadAndWrite:
    def test_what_is_written_can_be_read(self, place: Place) -> None:
        uri = join(place.folder, "dev/mnist/record.json")
        version = place.store.write(uri, b"{}")
        assert place.store.read(uri) == (b"{}", version)

    @several
    @given(path=paths, data=st.binary(max_size=200))
    def test_any_legal_name_and_any_bytes_survive(
        self, place: Place, path: str, data: bytes
    ) -> None:
        folder = place.new_folder()
        uri = join(folder, path)
        place.store.write(uri, data)
        assert place.store.read(uri)[0] == data
        (info,) = place.store.list(folder)
        assert (relative(folder, info.uri), info.size) == (path, len(data))
        assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=5)
        assert place.store.read(info.uri)[0] == data

    def test_a_write_replaces_and_gives_another_version(self, place: Place) -> None:
        uri = join(place.folder, "x")
        first = place.store.write(uri, b"1")
        second = place.store.write(uri, b"2")
        assert first != second
        assert place.store.read(uri) == (b"2", second)

    @pytest.mark.parametrize("name", ["missing", "folder", "folder/object/below"])
    def test_reading_what_is_no_object_says_so(self, place: Place, name: str) -> None:
        place.store.write(join(place.folder, "folder/object"), b"")
        with pytest.raises(ObjectNotFoundError, match=name):
            place.store.read(join(place.folder, name))

    @pytest.mark.parametrize("uri", ["http://x/y", "gs://bucket/x", "/tmp/x", "", "s3:/b/x"])
    def test_other_schemes_are_refused(self, place: Place, uri: str) -> None:
        for action in (place.store.read, place.store.list, place.store.delete):
            with pytest.raises(ConfigurationError, match="s3://bucket/folder"):
                action(uri)

    def test_no_path_leads_out_of_its_folder(self, place: Place) -> None:
        with pytest.raises(ConfigurationError, match=r"'\.\.'"):
            place.store.write(f"{place.folder}/../x", b"")
        with pytest.raises(ConfigurationError, match=r"'\.\.'"):
            join(place.folder, "../x")


class TestConditionalWrites:
    def test_a_new_object_is_made_once(self, place: Place) -> None:
        uri = join(place.folder, "x")
        place.store.write(uri, b"first", new=True)
        with pytest.raises(PreconditionFailedError, match="Read it again"):
            place.store.write(uri, b"second", new=True)
        assert place.store.read(uri)[0] == b"first"

    def test_only_who_knows_the_version_may_replace_it(self, place: Place) -> None:
        uri = join(place.folder, "x")
        old = place.store.write(uri, b"1")
        current = place.store.write(uri, b"2", version=old)
        with pytest.raises(PreconditionFailedError):
            place.store.write(uri, b"3", version=old)
        assert place.store.read(uri) == (b"2", current)

    def test_what_is_gone_is_not_replaced(self, place: Place) -> None:
        uri = join(place.folder, "deep/down/x")
        version = place.store.write(uri, b"1")
        place.store.delete(join(place.folder, "deep"))
        with pytest.raises(PreconditionFailedError):
            place.store.write(uri, b"2", version=version)
        assert place.store.list(place.folder) == []

    def test_both_conditions_at_once_are_refused(self, place: Place) -> None:
        with pytest.raises(ModelValidationException, match="not both"):
            place.store.write(join(place.folder, "x"), b"", version="1", new=True)

    def test_of_racing_threads_one_makes_the_object(self, place: Place) -> None:
        for number in range(5):
            uri, start, winners = join(place.folder, str(number)), threading.Barrier(4), []

            def write(
                uri: str = uri, start: threading.Barrier = start, winners: list[str] = winners
            ) -> None:
                start.wait()
                # All write the same bytes, so that only the condition can tell them apart.
                try:
                    winners.append(place.store.write(uri, b"same", new=True))
                except PreconditionFailedError:
                    return

            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(winners) == 1

    def test_racing_processes_lose_no_update(self, place: Place) -> None:
        uri = join(place.folder, "counter")
        script = (
            "import sys\n"
            "from kaptain_zen.exceptions import ObjectNotFoundError, PreconditionFailedError\n"
            "from kaptain_zen.platform.config.s3 import S3ConfigurationProvider\n"
            "from tests.local.storage_support import store_at\n"
            "base, uri, s3 = sys.argv[1:]\n"
            "store = store_at(base, S3ConfigurationProvider.from_env() if s3 else None)\n"
            "store.list(base)\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "done = 0\n"
            "while done < 10:\n"
            "    try:\n"
            "        data, version = store.read(uri)\n"
            "    except ObjectNotFoundError:\n"
            "        data, version = b'0', None\n"
            "    try:\n"
            "        store.write(uri, b'%d' % (int(data) + 1), version=version,\n"
            "                    new=version is None)\n"
            "        done += 1\n"
            "    except PreconditionFailedError:\n"
            "        pass\n"
        )
        kind = "s3" if place.environment else ""
        root = str(Path(__file__).parents[2])
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, place.folder, uri, kind],
                env=os.environ | place.environment | {"PYTHONPATH": root},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                process.communicate("go\n", timeout=60)
            assert [process.returncode for process in processes] == [0, 0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert place.store.read(uri)[0] == b"30"
        assert [info.uri for info in place.store.list(place.folder)] == [uri]


class TestFolders:
    def test_a_folder_is_not_what_begins_with_its_name(self, place: Place) -> None:
        for name in ("a/b/inside", "a/bc/outside", "a/b.txt", "a/b-2/outside"):
            place.store.write(join(place.folder, name), b"")
        inner = join(place.folder, "a/b")
        assert [info.uri for info in place.store.list(inner)] == [join(inner, "inside")]
        assert place.store.delete(inner) == 1
        left = [relative(place.folder, info.uri) for info in place.store.list(place.folder)]
        assert left == ["a/b-2/outside", "a/b.txt", "a/bc/outside"]

    def test_a_list_is_in_order_and_begins_with_the_folder_as_it_was_given(
        self, place: Place
    ) -> None:
        for name in ("b", "a/2", "a/10", "ä model/record.json", "B"):
            place.store.write(f"{place.folder}/{name}", b"12")
        found = place.store.list(place.folder)
        assert [info.uri for info in found] == [
            f"{place.folder}/{name}" for name in ("B", "a/10", "a/2", "b", "ä model/record.json")
        ]
        assert {info.size for info in found} == {2}

    def test_there_is_nothing_in_a_folder_that_is_none(self, place: Place) -> None:
        place.store.write(join(place.folder, "object"), b"")
        for name in ("missing", "object"):
            uri = join(place.folder, name)
            assert place.store.list(uri) == []
            assert place.store.delete(uri) == 0
            for action in (
                place.store.fingerprint,
                lambda uri: place.store.copy(uri, join(place.folder, "copy")),
            ):
                with pytest.raises(ObjectNotFoundError, match=name):
                    action(uri)
        assert place.store.read(join(place.folder, "object"))[0] == b""

    def test_slashes_at_the_end_do_not_matter(self, place: Place) -> None:
        uri = join(place.folder, "a/x")
        place.store.write(uri, b"")
        assert [info.uri for info in place.store.list(f"{place.folder}/a/")] == [uri]
        assert place.store.delete(f"{place.folder}/a//") == 1

    def test_deleting_leaves_neighbours_and_no_trace(self, place: Place) -> None:
        for name in ("trials/1/m", "trials/2/m", "tuned/m"):
            place.store.write(join(place.folder, name), b"")
        assert place.store.delete(join(place.folder, "trials")) == 2
        assert place.store.delete(join(place.folder, "trials")) == 0
        assert [relative(place.folder, i.uri) for i in place.store.list(place.folder)] == [
            "tuned/m"
        ]

    def test_what_holds_more_than_models_is_not_deleted(self, place: Place) -> None:
        place.store.write(join(place.folder, "x"), b"")
        above = place.folder.rpartition("/")[0]
        for uri in (above, "file:///", "s3://some-bucket"):
            with pytest.raises(ModelValidationException, match="more than models"):
                place.store.delete(uri)
        assert place.store.delete(place.folder) == 1

    def test_our_own_files_are_no_part_of_a_folder(self, place: Place) -> None:
        for name in ("m", ".kaptain-zen-1", "a/.kaptain-zen-2", ".kaptain-zen-3/b"):
            place.store.write(join(place.folder, name), b"")
        assert [relative(place.folder, i.uri) for i in place.store.list(place.folder)] == ["m"]
        assert place.store.delete(place.folder) == 1
        with pytest.raises(ObjectNotFoundError):
            place.store.read(join(place.folder, ".kaptain-zen-3/b"))


class TestUploadAndDownload:
    def test_a_folder_comes_back_as_it_was(
        self, place: Place, source: Path, tmp_path: Path
    ) -> None:
        place.store.upload(source, place.folder)
        place.store.download(place.folder, tmp_path / "back" / "again")
        assert tree_of(tmp_path / "back" / "again") == tree_of(source)

    @several
    @given(tree=trees(st.binary(max_size=50)))
    def test_any_folder_comes_back_with_the_same_fingerprint(
        self, place: Place, tmp_path: Path, tree: dict[str, bytes]
    ) -> None:
        there, back = tmp_path / uuid4().hex, tmp_path / uuid4().hex
        folder = place.new_folder()
        place.store.upload(put_tree(there, tree), folder)
        place.store.download(folder, back)
        assert tree_of(back) == tree
        assert place.store.fingerprint(folder) == place.store.fingerprint(there.as_uri())

    def test_files_that_are_there_stay_or_are_replaced(
        self, place: Place, source: Path, tmp_path: Path
    ) -> None:
        place.store.write(join(place.folder, "model.joblib"), b"old")
        place.store.write(join(place.folder, "other"), b"stays")
        place.store.upload(source, place.folder)
        target = put_tree(tmp_path / "target", {"model.joblib": b"older", "mine": b"stays too"})
        place.store.download(place.folder, target)
        assert tree_of(target) == tree_of(source) | {"other": b"stays", "mine": b"stays too"}

    def test_an_empty_folder_leaves_nothing(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "empty" / "emptier").mkdir(parents=True)
        place.store.upload(tmp_path / "empty", place.folder)
        assert place.store.list(place.folder) == []
        with pytest.raises(ObjectNotFoundError):
            place.store.download(place.folder, tmp_path / "target")
        assert not (tmp_path / "target").exists()

    def test_a_folder_that_is_none_is_refused(self, place: Place, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"no folder .*nowhere"):
            place.store.upload(tmp_path / "nowhere", place.folder)

    @pytest.mark.parametrize("target", ["/etc/passwd", "model.joblib", "nowhere"])
    def test_links_are_refused_before_anything_is_written(
        self, place: Place, source: Path, target: str
    ) -> None:
        (source / "a b" / "link").symlink_to(target)
        with pytest.raises(StorageError, match=r"link.* is a symbolic link"):
            place.store.upload(source, place.folder)
        assert place.store.list(place.folder) == []

    def test_a_link_to_a_folder_is_not_followed(self, place: Place, source: Path) -> None:
        (source / "loop").symlink_to(source)
        with pytest.raises(StorageError, match=r"loop.* is a symbolic link"):
            place.store.upload(source, place.folder)

    def test_a_pipe_is_refused(self, place: Place, source: Path) -> None:
        os.mkfifo(source / "pipe")
        with pytest.raises(StorageError, match=r"pipe.* is neither a file nor a folder"):
            place.store.upload(source, place.folder)

    @pytest.mark.parametrize("name", [b"line\nend", b"not-utf-8-\xff"])
    def test_names_that_s3_cannot_hold_are_refused(
        self, place: Place, source: Path, name: bytes
    ) -> None:
        Path(os.fsdecode(bytes(source) + b"/" + name)).touch()
        with pytest.raises(StorageError, match="Rename it"):
            place.store.upload(source, place.folder)
        assert place.store.list(place.folder) == []

    def test_a_download_into_what_is_a_file_changes_nothing(
        self, place: Place, source: Path, tmp_path: Path
    ) -> None:
        place.store.upload(source, place.folder)
        before = put_tree(tmp_path / "target", {"model.joblib/x": b"a folder here"})
        with pytest.raises(StorageError, match=r"model\.joblib"):
            place.store.download(place.folder, before)
        assert tree_of(before) == {"model.joblib/x": b"a folder here"}
        assert sorted(p.name for p in before.iterdir()) == ["model.joblib"]


class TestCopyAndFingerprint:
    def test_a_copy_has_the_same_fingerprint(self, place: Place, source: Path) -> None:
        place.store.upload(source, join(place.folder, "trained/1"))
        place.store.copy(join(place.folder, "trained/1"), join(place.folder, "deploy/2"))
        original = place.store.fingerprint(join(place.folder, "trained/1"))
        assert place.store.fingerprint(join(place.folder, "deploy/2")) == original
        assert original[0] == sum(map(len, tree_of(source).values()))

    @pytest.mark.parametrize(
        ("exclude", "left"),
        [
            (("model.joblib",), ["a b/c/d%20#?+&=.bin", "a b/ü.txt"]),
            (("a b",), ["model.joblib"]),
            (("a b/c", "a"), ["a b/ü.txt", "model.joblib"]),
        ],
    )
    def test_files_and_folders_can_be_left_out(
        self, place: Place, source: Path, exclude: tuple[str, ...], left: list[str]
    ) -> None:
        here, there = join(place.folder, "here"), join(place.folder, "there")
        place.store.upload(source, here)
        place.store.copy(here, there, exclude=exclude)
        assert [relative(there, info.uri) for info in place.store.list(there)] == left
        assert place.store.fingerprint(here, exclude=exclude) == place.store.fingerprint(there)

    def test_leaving_everything_out_leaves_nothing_to_do(self, place: Place) -> None:
        place.store.write(join(place.folder, "here/metrics.json"), b"{}")
        here, there = join(place.folder, "here"), join(place.folder, "there")
        with pytest.raises(ObjectNotFoundError):
            place.store.copy(here, there, exclude=("metrics.json",))
        with pytest.raises(ObjectNotFoundError):
            place.store.fingerprint(here, exclude=("metrics.json",))
        assert place.store.list(there) == []

    def test_a_folder_is_not_copied_into_itself(self, place: Place) -> None:
        place.store.write(join(place.folder, "a/x"), b"")
        for target in ("a", "a/b"):
            with pytest.raises(ModelValidationException, match="lies in it"):
                place.store.copy(join(place.folder, "a"), join(place.folder, target))
        place.store.copy(join(place.folder, "a"), join(place.folder, "ab"))
        assert len(place.store.list(join(place.folder, "ab"))) == 1

    def test_a_fingerprint_changes_with_names_and_contents(self, place: Place) -> None:
        seen = set()
        for number, tree in enumerate(
            [{"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""}, {"a/b": b"1"}]
        ):
            folder = join(place.folder, str(number))
            for name, data in tree.items():
                place.store.write(join(folder, name), data)
            seen.add(place.store.fingerprint(folder))
        assert len(seen) == 5


class TestCheck:
    def test_it_leaves_nothing(self, place: Place) -> None:
        place.store.check()
        assert place.store.list(place.folder) == []
        place.store.write(join(place.folder, "x"), b"")
        place.store.check()
        assert len(place.store.list(place.folder)) == 1


class TestBothKinds:
    """A model may be deployed from elsewhere than where models are kept."""

    def test_copies_go_from_one_kind_to_the_other(
        self, place: Place, s3_server: S3Server, source: Path, tmp_path: Path
    ) -> None:
        store = store_at(place.folder, s3_server.provider)
        local, remote = (tmp_path / "l o c").as_uri(), s3_server.uri(f"test-{uuid4().hex}")
        store.copy(source.as_uri(), remote, exclude=("model.joblib",))
        store.copy(remote, local)
        assert sorted(tree_of(tmp_path / "l o c")) == ["a b/c/d%20#?+&=.bin", "a b/ü.txt"]
        assert store.fingerprint(local) == store.fingerprint(remote)
        assert store.fingerprint(source.as_uri(), exclude=("model.joblib",)) == (
            store.fingerprint(remote)
        )
        for empty, other in ((remote, local), (local, remote)):
            with pytest.raises(ObjectNotFoundError):
                store.copy(join(empty, "missing"), other)
        assert (store.delete(remote), store.delete(local)) == (2, 2)
