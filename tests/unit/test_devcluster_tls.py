"""Certificates of devcluster: who trusts whom, and for how long."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from devcluster.tls import VALID, Authority, Pair, client_context, expires, server_context


def _meet(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object] | None:
    """Have both shake hands; what the client has shown of itself."""
    shown: list[dict[str, object] | None] = []
    one, other = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(one, server_side=True) as connection:
                shown.append(connection.getpeercert())
                connection.sendall(b"x")
        except (ssl.SSLError, OSError):
            one.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(other, server_hostname=name) as connection:
            if connection.recv(1) != b"x":
                raise ssl.SSLError("refused")
    finally:
        other.close()
        thread.join(10)
    return shown[0]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("tests")


def test_a_server_is_trusted_under_its_names_only(authority: Authority) -> None:
    server = server_context(authority.issue("server", hosts=["127.0.0.1", "localhost"]))
    client = client_context(authority.pair.certificate)
    for name in ("127.0.0.1", "localhost"):
        _meet(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _meet(server, client, "elsewhere")


def test_a_server_of_another_authority_is_not_trusted(authority: Authority) -> None:
    server = server_context(Authority.create("other").issue("server", hosts=["localhost"]))
    with pytest.raises(ssl.SSLCertVerificationError):
        _meet(server, client_context(authority.pair.certificate), "localhost")


def test_a_client_is_known_by_name_and_groups_and_cannot_serve(authority: Authority) -> None:
    server = server_context(authority.issue("server", hosts=["localhost"]))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=authority.pair.certificate.decode())
    pair = authority.issue("alice", groups=["team", "other"])
    trusting = client_context(authority.pair.certificate, pair)
    shown = _meet(server, trusting, "localhost")
    assert shown
    subject = [attribute for part in shown["subject"] for attribute in part]
    assert sorted(subject) == [
        ("commonName", "alice"),
        ("organizationName", "other"),
        ("organizationName", "team"),
    ]
    stranger = Authority.create("other").issue("alice", groups=["team"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _meet(server, client_context(authority.pair.certificate, stranger), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        _meet(server_context(pair), client_context(authority.pair.certificate), "localhost")


def test_certificates_hold_from_a_moment_ago_and_not_for_long(authority: Authority) -> None:
    for pair in (authority.pair, authority.issue("a")):
        until = expires(pair.certificate)
        assert timedelta(0) < until - datetime.now(UTC) <= VALID <= timedelta(days=30)


def test_an_authority_is_found_again(authority: Authority, tmp_path: Path) -> None:
    authority.pair.write(tmp_path, "ca")
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}
    again = Authority.read(tmp_path, "ca")
    server = server_context(again.issue("server", hosts=["localhost"]))
    _meet(server, client_context(authority.pair.certificate), "localhost")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no files in memory")
def test_a_key_is_not_written_to_disk_to_be_loaded(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    without_end = Pair(*(pem.strip() for pem in vars(authority.issue("a")).values()))
    client_context(authority.pair.certificate, without_end)


def test_a_pair_that_does_not_belong_together_is_refused(authority: Authority) -> None:
    mixed = Pair(authority.issue("a").certificate, authority.issue("b").key)
    with pytest.raises(ssl.SSLError):
        client_context(authority.pair.certificate, mixed)
