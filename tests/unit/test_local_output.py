"""What workers print becomes lines, whatever it is and however it arrives."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.platform.local.output import MAX_LINE, LineSplitter, Redactor, Tail

PIECES = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"\xff", b"", b"\t"]))


def split(chunks: list[bytes]) -> list[bytes]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.close()


@given(PIECES, st.data())
def test_lines_do_not_depend_on_how_the_bytes_arrive(
    pieces: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert split(chunks) == split([whole])


@given(PIECES)
def test_no_byte_but_ends_of_lines_is_lost(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert b"".join(split([whole])) == re.sub(rb"[\r\n]", b"", whole)
    assert all(not set(line) & set(b"\r\n") for line in split([whole]))


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
def test_lines_of_text_come_back(lines: list[str]) -> None:
    for end in (b"\n", b"\r\n"):
        assert split([line.encode() + end for line in lines]) == [line.encode() for line in lines]


def test_a_progress_bar_is_a_line_per_update_and_blank_lines_stay() -> None:
    assert split([b"\r10%\r20%\r\n\nend"]) == [b"10%", b"20%", b"", b"end"]
    assert split([b"\r"]) == []


@given(st.integers(0, 3), st.integers(1, 3))
def test_a_long_line_is_cut_between_characters(offset: int, times: int) -> None:
    line = "x" * offset + "é€😀" * (MAX_LINE * times // 9)
    lines = split([line.encode() + b"\n"])
    assert all(len(piece) <= MAX_LINE for piece in lines)
    assert "".join(piece.decode() for piece in lines) == line


def test_a_stream_without_ends_of_lines_needs_no_more_memory_than_a_line() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(50) for line in splitter.feed(b"\x80" * 40_000)]
    assert sum(map(len, lines)) > 50 * 40_000 - 2 * MAX_LINE
    assert len(b"".join(lines + splitter.close())) == 50 * 40_000


SECRETS = st.text(st.characters(categories=["Lu", "Ll", "Nd", "P"]), min_size=1, max_size=40)


@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_a_long_secret_is_never_seen(secret: str, before: str, after: str) -> None:
    secret = secret.ljust(12, "+")
    line = Redactor([secret])(f"{before}{secret}{after}".encode())
    assert secret.encode() not in line


@given(SECRETS)
def test_a_secret_that_stands_alone_is_never_seen(secret: str) -> None:
    for line in (f"{secret}", f"key={secret}", f"'{secret}'", f"http://{secret}:x@host"):
        hidden = Redactor([secret])(line.encode())
        assert b"***" in hidden


def test_secrets_are_hidden_as_they_stand_in_urls_and_the_longest_first() -> None:
    redact = Redactor(["abc/def+ghi/jkl", "abc/def+ghi", "", "  "])
    assert redact(b"?k=abc%2Fdef%2Bghi%2Fjkl&x abc/def+ghi/jkl abc/def+ghi") == b"?k=***&x *** ***"


def test_a_short_secret_does_not_spoil_names_that_contain_it() -> None:
    redact = Redactor(["test"])
    assert redact(b"test_accuracy=1 latest=2 x-test test") == b"test_accuracy=1 latest=2 x-test ***"


@given(st.binary())
def test_without_secrets_nothing_is_changed(line: bytes) -> None:
    assert Redactor([])(line) == line


def test_a_secret_that_is_no_text_is_hidden() -> None:
    assert Redactor(["\udcff\udcfe-0123456789"])(b"x\xff\xfe-0123456789y") == b"x***y"


def test_the_tail_begins_with_the_last_traceback() -> None:
    tail = Tail()
    for line in (b"epoch 1", b"Traceback (most recent call last):", b"  File", b"E: x"):
        tail.add(line)
    assert tail.text() == "Traceback (most recent call last):\n  File\nE: x"


def test_the_tail_is_bounded() -> None:
    tail = Tail()
    for number in range(1000):
        tail.add(str(number).encode() + b"x" * 10_000)
    assert len(tail.text()) < 11 * 501
    assert tail.text().splitlines()[-1].startswith("999x")
