"""The router as an HTTP/1.1 proxy, between real sockets and real servers."""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.local.router_support import (
    Router,
    closed_port,
    read,
    read_all,
    running_router,
    upstream_server,
)
from tests.processes import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with upstream_server() as port:
        yield port


@pytest.fixture
def router(tmp_path: Path, server: int) -> Iterator[Router]:
    with running_router(tmp_path / "router") as router:
        router.client.switch({("one", server): 100})
        yield router


def test_a_request_passes_with_everything_that_is_meant_for_the_server(
    router: Router, server: int
) -> None:
    body = b"some bytes"

    status, headers, seen = router.ask("/a/b?c=d", body, "PUT", x_own="yes", host="example.org")

    assert status == 200
    assert seen["port"] == server
    assert (seen["method"], seen["path"]) == ("PUT", "/a/b?c=d")
    assert seen["sha"] == hashlib.sha256(body).hexdigest()
    assert seen["headers"]["x-own"] == "yes"
    assert seen["headers"]["host"] == "example.org"
    assert headers["kaptain-zen-revision"] == "one"


def test_headers_of_one_hop_stay_there(router: Router) -> None:
    _, headers, seen = router.ask(
        "/", connection="keep-alive, x-mine", x_mine="1", te="trailers", keep_alive="timeout=5"
    )

    assert not {"x-mine", "te", "keep-alive"} & set(seen["headers"])
    assert "x-hop" not in headers
    assert headers["x-kept"] == "2"


def test_one_connection_carries_many_requests_over_one_upstream_connection(
    router: Router, server: int
) -> None:
    connection = router.connect()
    for number in range(20):
        connection.request("POST", f"/{number}", b"x" * number)
        status, _, seen = read(connection)
        assert (status, seen["path"], seen["size"]) == (200, f"/{number}", number)
    upstream = [
        c
        for c in psutil.Process(router.child.ref.pid).net_connections()
        if c.raddr and c.raddr.port == server
    ]
    connection.close()

    assert len(upstream) == 1


@pytest.mark.parametrize(
    ("path", "expected"), [("/chunked", b"first,second,third"), ("/until-close", b"all of it")]
)
def test_answers_of_unknown_length_arrive_whole(router: Router, path: str, expected: bytes) -> None:
    connection = router.connect()
    for _ in range(2):
        connection.request("GET", path)
        assert read(connection)[2] == expected
    connection.close()


def test_a_client_of_http_1_0_gets_no_chunks_and_a_closed_connection(router: Router) -> None:
    head, _, body = router.raw(b"GET /chunked HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")

    assert body == b"first,second,third"
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()


def test_a_client_of_http_1_0_may_keep_its_connection(router: Router) -> None:
    request = b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

    answers = router.raw(request + request)

    assert answers.count(b"HTTP/1.1 200") == 2
    assert answers.lower().count(b"connection: keep-alive") == 2


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 1024 * 1024 + 1, 9_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_any_size_arrive_unchanged(router: Router, size: int, chunked: bool) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    connection = router.connect()
    pieces = (body[i : i + 100_000] for i in range(0, size, 100_000)) if chunked else body

    connection.request(
        "POST",
        "/",
        pieces,
        encode_chunked=chunked,
        headers={"Transfer-Encoding": "chunked"} if chunked else {},
    )
    status, _, seen = read(connection)
    connection.request("GET", "/again")
    again = read(connection)
    connection.close()

    assert (status, seen["size"], seen["sha"]) == (200, size, hashlib.sha256(body).hexdigest())
    assert again[2]["path"] == "/again"


def test_head_gets_the_head_only(router: Router) -> None:
    connection = router.connect()
    for _ in range(2):
        connection.request("HEAD", "/x")
        response = connection.getresponse()
        assert response.status == 200
        assert int(response.headers["content-length"]) > 0
        assert response.read() == b""
    connection.request("GET", "/y")
    assert read(connection)[2]["path"] == "/y"
    connection.close()


def test_an_answer_without_content_ends_where_it_should(router: Router) -> None:
    connection = router.connect()
    for _ in range(2):
        connection.request("GET", "/empty")
        status, headers, body = read(connection)
        assert (status, body) == (204, b"")
        assert "transfer-encoding" not in headers
    connection.close()


@pytest.mark.parametrize("size", [4, 2_000_000])
def test_a_client_that_waits_for_100_continue_gets_it(router: Router, size: int) -> None:
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as connection:
        connection.sendall(
            b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n" % size
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x" * size)
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"size": %d' % size in answer
    assert b'"expect"' not in answer


def test_requests_sent_ahead_are_answered_in_order(router: Router) -> None:
    slow_first = b"GET /slow?s=0.2 HTTP/1.1\r\nHost: x\r\n\r\n"
    rest = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" % n for n in range(60)
    )

    answers = router.raw(slow_first + rest)

    positions = [answers.index(b'"/%d"' % n) for n in range(60)]
    assert positions == sorted(positions)
    assert answers.index(b"/slow") < positions[0]
    assert answers.count(b"HTTP/1.1 200") == 61


def test_thousands_of_refused_requests_sent_ahead_do_no_harm(router: Router) -> None:
    router.client.switch({})

    answers = router.raw(b"GET / HTTP/1.1\r\n\r\n" * 5000)

    assert answers.count(b"HTTP/1.1 503") == 5000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: three\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_for_it_is_refused_with_an_error_in_json(
    router: Router, request_: bytes, status: int
) -> None:
    head, _, body = router.raw(request_).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    assert body.startswith(b'{"error": ')
    assert router.ask("/fine")[0] == 200


def test_a_broken_request_is_refused_after_the_good_ones_before_it_are_answered(
    router: Router,
) -> None:
    answers = router.raw(b"GET /slow?s=0.1 HTTP/1.1\r\n\r\nNONSENSE\r\n\r\n")

    assert answers.index(b"HTTP/1.1 200") < answers.index(b"HTTP/1.1 400")


def test_a_head_without_end_is_refused(router: Router) -> None:
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(200):
            connection.sendall(b"x-header: " + b"y" * 1000 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_an_offer_to_upgrade_is_passed_over(router: Router) -> None:
    upgrade = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    get = b"GET /one HTTP/1.1\r\n" + upgrade + b"\r\n"
    post = b"POST /two HTTP/1.1\r\n" + upgrade + b"Content-Length: 2\r\n\r\nab"

    answers = router.raw(get + post + b"GET /three HTTP/1.1\r\n\r\n")

    assert [answers.index(p) for p in (b"/one", b"/two", b"/three")] == sorted(
        answers.index(p) for p in (b"/one", b"/two", b"/three")
    )
    assert answers.count(b"HTTP/1.1 200") == 3


def test_a_target_as_sent_to_proxies_becomes_a_path(router: Router) -> None:
    answer = router.raw(b"GET http://example.org/x?y=1 HTTP/1.1\r\nHost: example.org\r\n\r\n")

    assert b'"path": "/x?y=1"' in answer


def test_a_server_that_cannot_be_reached_is_named(router: Router) -> None:
    router.client.switch({("gone", closed_port()): 100})

    status, _, body = router.ask("/", b"x")

    assert status == 502
    assert "gone" in body["error"]


def test_another_revision_answers_for_one_that_cannot_be_reached(
    router: Router, server: int
) -> None:
    router.client.switch({("gone", closed_port()): 50, ("one", server): 50})

    answers = [router.ask("/", b"x") for _ in range(20)]

    assert {(status, headers["kaptain-zen-revision"]) for status, headers, _ in answers} == {
        (200, "one")
    }
    assert router.client.status().answered == {"one": 20}


def test_a_server_that_ends_the_connection_without_an_answer_is_a_bad_gateway(
    router: Router,
) -> None:
    status, _, body = router.ask("/drop", b"x")

    assert status == 502
    assert "closed the connection" in body["error"]
    assert router.client.status().in_flight == {"one": 0}


def test_connections_that_the_server_closed_meanwhile_cost_no_request(router: Router) -> None:
    connection = router.connect()
    statuses = []
    for _ in range(200):
        connection.request("POST", "/forgetful", b"x")
        statuses.append(read(connection)[0])
    connection.close()

    assert statuses == [200] * 200


def test_an_answer_that_breaks_off_is_not_taken_for_whole(router: Router) -> None:
    connection = router.connect()
    connection.request("GET", "/half")

    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        read(connection)

    connection.close()
    assert router.client.status().answered == {}


def test_an_answer_before_the_end_of_the_request_is_passed_on(router: Router) -> None:
    connection = router.connect()
    connection.request("POST", "/early", b"x" * 3_000_000)
    assert read(connection)[0] == 413

    connection.request("GET", "/next")
    assert read(connection)[2]["path"] == "/next"
    connection.close()


def test_a_server_that_takes_too_long_is_a_timeout(tmp_path: Path, server: int) -> None:
    with running_router(tmp_path / "router", answer_timeout=0.3) as router:
        router.client.switch({("one", server): 100})

        status, _, body = router.ask("/slow?s=3")

        assert status == 504
        assert "0.3 s" in body["error"]
        assert router.client.status().in_flight == {"one": 0}
        assert router.ask("/fine")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"x" * 2_000_000])
def test_a_client_that_goes_away_leaves_nothing_under_way(router: Router, sent: bytes) -> None:
    connection = socket.create_connection(("127.0.0.1", router.port), timeout=20)
    path = b"/slow?s=5" if not sent else b"/stall"
    connection.sendall(
        b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (path, len(sent) * 2) + sent
    )
    eventually(lambda: router.client.status().in_flight == {"one": 1})
    # A reset, as from a client that was killed with data unread.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()

    eventually(lambda: router.client.status().in_flight == {"one": 0}, seconds=3)


def test_a_client_that_reads_slowly_does_not_fill_the_router(router: Router) -> None:
    process = psutil.Process(router.child.ref.pid)
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as connection:
        connection.sendall(b"GET /big?n=262144000 HTTP/1.1\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        resident = process.memory_info().rss
        received = 0
        while piece := connection.recv(1 << 20):
            received += len(piece)

    assert resident < 80_000_000
    assert received > 262144000


def test_a_server_that_reads_slowly_does_not_fill_the_router(router: Router) -> None:
    process = psutil.Process(router.child.ref.pid)
    with socket.create_connection(("127.0.0.1", router.port), timeout=1) as connection:
        connection.sendall(b"POST /stall HTTP/1.1\r\nContent-Length: 262144000\r\n\r\n")
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 262144000:
                sent += connection.send(b"x" * (1 << 20))
        resident = process.memory_info().rss
        process.kill()  # it would wait for the server, which does not answer for half a minute

    assert resident < 80_000_000


def test_many_clients_at_once_are_all_answered(router: Router) -> None:
    failures: list[object] = []

    def ask() -> None:
        try:
            connection = router.connect()
            for number in range(10):
                connection.request("POST", f"/{number}", b"abc")
                status, _, seen = read(connection)
                if (status, seen["path"]) != (200, f"/{number}"):
                    failures.append((status, seen))
            connection.close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert router.client.status().answered == {"one": 500}
