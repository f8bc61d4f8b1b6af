from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.exceptions import ObjectNotFoundError, StorageError
from kaptain_zen.storage.rules import fingerprint_of, within

hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
files = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(0, 2**40), hashes),
    unique_by=lambda file: file[0],
    max_size=5,
)


@given(files, st.randoms())
def test_a_fingerprint_does_not_depend_on_the_order(
    found: list[tuple[str, int, str]], random: object
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis' Random has no exact type.
    assert fingerprint_of(shuffled) == fingerprint_of(found)
    assert fingerprint_of(found)[0] == sum(size for _, size, _ in found)


@given(files, files)
def test_different_files_have_different_fingerprints(
    one: list[tuple[str, int, str]], other: list[tuple[str, int, str]]
) -> None:
    same = {(name, content) for name, _, content in one} == {
        (name, content) for name, _, content in other
    }
    assert (fingerprint_of(one)[1] == fingerprint_of(other)[1]) is same


def test_what_hangs_is_given_up() -> None:
    release, began = threading.Event(), time.monotonic()
    with pytest.raises(StorageError, match="the drive does not answer"):
        within(0.2, lambda: assert_set(release), "the drive does not answer")
    release.set()
    assert time.monotonic() - began < 5


def assert_set(event: threading.Event) -> None:
    assert event.wait(30)


def test_what_fails_in_time_fails_as_it_is() -> None:
    def fail() -> None:
        raise ObjectNotFoundError("gone")

    with pytest.raises(ObjectNotFoundError, match="gone"):
        within(30, fail, "too late")
