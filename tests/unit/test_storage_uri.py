from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.storage.uri import contains, join, name, parent, parse, relative
from kaptain_zen.training.uris import legal_name

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda word: "/" not in word and legal_name(word)
)
bases = st.sampled_from(["s3://bucket", "s3://bucket/models", "file:///", "file:///a%20b"])


@given(base=bases, parts=st.lists(words, min_size=1, max_size=3))
def test_a_name_and_its_folder_make_the_uri(base: str, parts: list[str]) -> None:
    uri = join(base, *parts)
    assert name(uri) == parts[-1]
    assert parse(join(parent(uri), name(uri))) == parse(uri)
    assert relative(base, uri) == "/".join(parts)
    assert contains(base, uri)
    assert contains(uri, uri)
    assert not contains(uri, base)


@given(base=bases, word=words, more=words)
def test_a_folder_does_not_contain_what_begins_like_it(base: str, word: str, more: str) -> None:
    folder, neighbour = join(base, word), join(base, word + more)
    assert not contains(folder, neighbour)
    with pytest.raises(ConfigurationError, match="does not lie below"):
        relative(folder, neighbour)


def test_kinds_and_buckets_are_kept_apart() -> None:
    assert not contains("s3://bucket/a", "s3://other-bucket/a/b")
    assert not contains("s3://bucket/a", "file:///a/b")
    assert contains("file:///a%20b", "file:///a b/c")


@pytest.mark.parametrize("uri", ["s3://bucket", "file:///"])
def test_the_top_lies_in_no_folder(uri: str) -> None:
    assert name(uri) == ""
    with pytest.raises(ConfigurationError, match="lies in no folder"):
        parent(uri)


def test_the_parent_of_the_first_part_is_the_top() -> None:
    assert parent("s3://bucket/a") == "s3://bucket"
    assert parent("file:///a") == "file:///"
    assert parent("file:///a%20b/c%25") == "file:///a b"
    with pytest.raises(ConfigurationError):
        relative("s3://bucket/a", "s3://bucket/a")
