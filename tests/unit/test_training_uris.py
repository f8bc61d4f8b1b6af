from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.training.uris import Location, join, legal_name, local_path, parse, shown

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: "/" not in name and legal_name(name)
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://kaptain/models", Location("s3", "kaptain", "models")),
        ("s3://kaptain/models/", Location("s3", "kaptain", "models")),
        ("S3://kaptain/a b%20c", Location("s3", "kaptain", "a b%20c")),
        ("s3://kaptain", Location("s3", "kaptain", "")),
        ("s3://kaptain/", Location("s3", "kaptain", "")),
        ("file:///var/models/", Location("file", "", "/var/models")),
        ("file://localhost/var", Location("file", "", "/var")),
        ("file:///a%20b/%C3%BC", Location("file", "", "/a b/ü")),
        ("file:///a b/ü#1?x", Location("file", "", "/a b/ü#1?x")),
        ("file:///100%25", Location("file", "", "/100%")),
        ("file:///", Location("file", "", "/")),
    ],
)
def test_a_uri_is_taken_apart(uri: str, expected: Location) -> None:
    assert parse(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        None,
        7,
        b"s3://b/x",
        "",
        "  ",
        "models",
        "/var/models",
        "http://host/x",
        "s3a://bucket/x",
        "s3:bucket/x",
        "s3:///x",
        "s3://b/x",
        "s3://Bücket/x",
        "s3://bucket//x",
        "s3://bucket/a//x",
        "s3://bucket/a/../x",
        "s3://bucket/./x",
        "s3://bucket/a\nb",
        "s3://bucket/\ud800",
        "s3://bucket/" + "ü" * 513,
        "s3://user:secret@bucket/x",
        "file://",
        "file:/var/models",
        "file://host/var",
        "file://user:secret@host/var",
        "file:///a/../b",
        "file:///a/%2e%2e/b",
        "file:///a%2F..%2Fb",
        "file:///a%00",
        "file:///%ff",
        "file:///\ud800%20",
    ],
)
def test_what_is_no_storage_uri_is_refused(uri: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(uri)
    assert "secret" not in str(caught.value)


@given(bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True), key=paths)
def test_s3_uris_survive(bucket: str, key: str) -> None:
    location = parse(f"s3://{bucket}/{key.rstrip('/')}")
    assert location == Location("s3", bucket, key)
    assert parse(location.uri) == location


@given(path=paths)
def test_file_uris_survive_however_they_were_written(path: str) -> None:
    expected = Location("file", "", f"/{path}")
    assert parse(Path(f"/{path}").as_uri()) == expected
    assert parse(expected.uri) == expected
    assert local_path(expected.uri) == Path(f"/{path}")


@given(
    base=st.sampled_from(["s3://bucket", "s3://bucket/a b", "file:///x", "file:///"]), name=paths
)
def test_joining_keeps_the_name_and_the_beginning(base: str, name: str) -> None:
    joined = join(base, name)
    assert joined.startswith(base.rstrip("/") + "/")
    assert parse(joined).path.removesuffix(name) in ("", "a b/", "/x/", "/")
    assert join(base, *name.split("/")) == joined


@pytest.mark.parametrize("name", ["", "..", "a/../b", "a//b", "/a", "a\x00"])
def test_joining_refuses_what_leads_elsewhere(name: str) -> None:
    for base in ("s3://bucket/x", "file:///x"):
        with pytest.raises(ConfigurationError):
            join(base, name, "y")


def test_only_a_local_uri_has_a_path() -> None:
    with pytest.raises(ConfigurationError, match="file://"):
        local_path("s3://bucket/x")


def test_passwords_are_not_shown() -> None:
    assert shown("http://user:secret@host:1/x") == "'http://…@host:1/x'"
