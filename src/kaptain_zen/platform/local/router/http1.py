"""HTTP/1.1 as bytes: which headers pass a proxy, how heads and small answers are written.

RFC 9110, section 7.6.1, and RFC 9112, sections 6 and 9, say what a proxy must not pass on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus

Headers = list[tuple[bytes, bytes, bytes]]
"""Name in lower case, name as written, value."""

REVISION_HEADER = b"kaptain-zen-revision"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# Content-Length is written anew, from the framing that the router itself uses.
_OF_ONE_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def tokens(headers: Headers, name: bytes) -> set[bytes]:
    """The comma-separated words of a header, in lower case, over all its lines."""
    words: set[bytes] = set()
    for lower, _, value in headers:
        if lower == name:
            words.update(word.strip().lower() for word in value.split(b","))
    return words


def passed_on(headers: Headers) -> list[bytes]:
    """Lines of the headers that are meant for the other end, not for this hop."""
    connection = tokens(headers, b"connection")
    named = connection - {b"close", b"keep-alive"}
    return [
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in headers
        if lower not in _OF_ONE_HOP and lower not in named
    ]


def origin_form(target: bytes) -> bytes:
    """What a server that is no proxy expects in a request line: path and query."""
    if target.startswith((b"/", b"*")):
        return target
    _, found, rest = target.partition(b"://")
    if not found:
        return target
    _, slash, path = rest.partition(b"/")
    return slash + path if slash else b"/"


def framing(length: int | None) -> bytes:
    """The header that says where a body ends: after so many bytes, or after the last chunk."""
    if length is None:
        return b"transfer-encoding: chunked\r\n"
    return b"content-length: %d\r\n" % length


def chunk(data: bytes) -> bytes:
    """A piece of a body in chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def request_head(method: bytes, target: bytes, headers: Headers, frame: bytes) -> bytes:
    """The head of a request as it goes to a server."""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, b"".join(passed_on(headers)), frame)


def without_offers(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The head of a request as it came, but for its offer to speak another protocol."""
    lines = [
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in headers
        if lower not in (b"connection", b"upgrade")
    ]
    if b"close" in tokens(headers, b"connection"):
        lines.append(b"connection: close\r\n")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(lines))


def response_head(status: int, reason: bytes, lines: Iterable[bytes]) -> bytes:
    """The head of a response as it goes to a client."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, b"".join(lines))


def answer(status: int, value: object, *, lines: Iterable[bytes] = (), body: bool = True) -> bytes:
    """A whole response with a JSON body.

    Args:
        status: Its status.
        value: What the body says.
        lines: Further header lines.
        body: Whether the body is sent; not for HEAD.
    """
    data = json.dumps(value).encode()
    head = response_head(
        status,
        HTTPStatus(status).phrase.encode(),
        [b"content-type: application/json\r\n", framing(len(data)), *lines],
    )
    return head + data if body else head
