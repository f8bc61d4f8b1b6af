"""What the router does for its owner: switching, counting, draining, ending."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.local.router_support import Router, closed_port, read, running_router, upstream_server
from tests.processes import eventually

from kaptain_zen.platform.local.processes import ProcessRef
from kaptain_zen.platform.local.router_client import RouterClient, RouterError
from kaptain_zen.platform.local.serving_process import start_router


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[int, int]]:
    with upstream_server() as one, upstream_server() as two:
        yield one, two


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with running_router(tmp_path / "router") as router:
        yield router


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "secret", "Bearer "])
@pytest.mark.parametrize("path", ["status", "routes", "drain?revision=x&timeout=60", "else"])
def test_nobody_without_the_token_is_listened_to(
    router: Router, path: str, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization is not None else {}

    status, _, body = router.ask(f"/.kaptain-zen/{path}", **headers)

    assert status == 401
    assert "token" in body["error"]


def test_before_the_first_routes_clients_are_told_to_wait(router: Router) -> None:
    status, _, body = router.ask("/v2/models/m/infer", b"{}")

    assert status == 503
    assert "Wait until its deployment is ready" in body["error"]


def test_without_routes_clients_get_the_message(router: Router) -> None:
    router.client.switch({}, message="Closed for lunch.")

    assert router.ask("/")[0] == 503
    assert router.ask("/")[2] == {"error": "Closed for lunch."}


@pytest.mark.parametrize(
    "wanted",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"routes": [1]}',
        b'{"routes": [{"revision": "a", "port": 1}]}',
        b'{"routes": [{"revision": "a", "port": 1, "weight": 99}]}',
        b'{"routes": [{"revision": "a", "port": 0, "weight": 100}]}',
        b'{"routes": [{"revision": "a", "port": 70000, "weight": 100}]}',
        b'{"routes": [{"revision": 7, "port": 1, "weight": 100}]}',
        b'{"routes": [], "message": 7}',
        b'{"routes": [%b, %b]}' % ((b'{"revision": "a", "port": 1, "weight": 50}',) * 2),
    ],
)
def test_routes_that_make_no_sense_change_nothing(
    router: Router, servers: tuple[int, int], wanted: bytes
) -> None:
    router.client.switch({("one", servers[0]): 100})

    status, _, body = router.ask(
        "/.kaptain-zen/routes", wanted, "PUT", authorization="Bearer secret"
    )

    assert status == 400
    assert "not changed" in body["error"]
    assert router.client.status().routes == {("one", servers[0]): 100}


def test_a_canary_gets_its_share_of_every_hundred_requests(
    router: Router, servers: tuple[int, int]
) -> None:
    router.client.switch({("old", servers[0]): 70, ("new", servers[1]): 30})

    connection = router.connect()
    seen: Counter[str] = Counter()
    for _ in range(300):
        connection.request("POST", "/", b"x")
        _, headers, body = read(connection)
        revision = headers["kaptain-zen-revision"]
        assert body["port"] == servers[0 if revision == "old" else 1]
        seen[revision] += 1
    connection.close()

    assert seen == {"old": 210, "new": 90}
    assert router.client.status().answered == {"old": 210, "new": 90}


def test_switching_under_load_drops_nothing_and_takes_effect_at_once(
    router: Router, servers: tuple[int, int]
) -> None:
    one, two = servers
    router.client.switch({("one", one): 100})
    failures: list[Any] = []
    ending = threading.Event()

    def load() -> None:
        connection = router.connect()
        while not ending.is_set():
            try:
                connection.request("POST", "/slow?s=0.002", b"x")
                status, _, _ = read(connection)
                if status != 200:
                    failures.append(status)
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
                return
        connection.close()

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(40):
        now = ("one", one) if number % 2 else ("two", two)
        router.client.switch({now: 100})
        assert router.ask("/")[1]["kaptain-zen-revision"] == now[0]
        before = "two" if number % 2 else "one"
        assert router.client.drain(before, timeout=5) == 0
    ending.set()
    for thread in threads:
        thread.join()

    assert failures == []
    assert router.client.status().in_flight in ({"one": 0}, {"two": 0})


def test_a_drain_lasts_until_the_last_answer(router: Router, servers: tuple[int, int]) -> None:
    one, two = servers
    router.client.switch({("one", one): 100})
    answers: list[Any] = []
    slow = threading.Thread(target=lambda: answers.append(router.ask("/slow?s=0.6", b"x")))
    slow.start()
    eventually(lambda: router.client.status().in_flight == {"one": 1})

    router.client.switch({("two", two): 100})
    began = time.monotonic()
    assert router.client.drain("one", timeout=0.1) == 1
    assert router.client.drain("one", timeout=10) == 0
    took = time.monotonic() - began
    slow.join()

    assert 0.1 < took < 5
    assert answers[0][0] == 200
    assert answers[0][1]["kaptain-zen-revision"] == "one"
    assert router.client.drain("one", timeout=10) == 0


def test_a_revision_that_comes_back_keeps_what_it_has_under_way(
    router: Router, servers: tuple[int, int]
) -> None:
    one, two = servers
    router.client.switch({("one", one): 100})
    slow = threading.Thread(target=router.ask, args=("/slow?s=0.3", b"x"))
    slow.start()
    eventually(lambda: router.client.status().in_flight == {"one": 1})

    router.client.switch({("two", two): 100})
    router.client.switch({("one", one): 100})

    assert router.client.status().in_flight == {"one": 1}
    slow.join()
    assert router.client.status().in_flight == {"one": 0}


def test_the_owner_is_told_when_no_router_answers() -> None:
    client = RouterClient(closed_port(), "secret")

    with pytest.raises(RouterError, match=str(client.port)):
        client.status(timeout=1)
    assert "secret" not in repr(client)


def test_a_router_that_is_told_to_end_answers_what_it_has(tmp_path: Path) -> None:
    with (
        upstream_server() as server,
        running_router(tmp_path / "router") as router,
    ):
        router.client.switch({("one", server): 100})
        answers: list[Any] = []
        slow = threading.Thread(target=lambda: answers.append(router.ask("/slow?s=0.4", b"x")))
        idle = router.connect()
        idle.request("GET", "/")
        read(idle)
        slow.start()
        eventually(lambda: router.client.status().in_flight == {"one": 1})

        psutil.Process(router.child.ref.pid).send_signal(signal.SIGTERM)
        slow.join()

        assert answers[0][0] == 200
        eventually(lambda: not router.child.ref.alive, seconds=3)
        idle.close()


def test_a_port_that_is_taken_is_said_so(tmp_path: Path, router: Router) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "token").write_text("secret")

    child = start_router(folder, home=folder, port=router.port, log=folder / "log")
    said = child.channel.receive(timeout=20)
    child.stop()

    assert said is not None
    assert "in use" in said["error"]


def test_the_port_can_be_had_again_at_once(tmp_path: Path, servers: tuple[int, int]) -> None:
    with running_router(tmp_path / "router") as router:
        router.client.switch({("one", servers[0]): 100})
        port = router.port
        open_connection = router.connect()
        open_connection.request("GET", "/")
        read(open_connection)

    with running_router(tmp_path / "router", port=port) as again:
        assert again.port == port
    open_connection.close()


_CLIENT = """
import sys, time
from pathlib import Path
from kaptain_zen.platform.local.serving_process import start_router
folder = Path(sys.argv[1])
child = start_router(folder, home=folder, port=0, log=folder / "log")
child.channel.receive(timeout=20)
if sys.argv[2] == "adopt":
    child.adopt()
print(child.ref.model_dump_json(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("order", "survives"), [("adopt", True), ("nothing", False)])
def test_a_router_survives_its_client_only_when_it_was_freed(
    tmp_path: Path, order: str, survives: bool
) -> None:
    (tmp_path / "token").write_text("secret")
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(tmp_path), order], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout
    ref = ProcessRef.model_validate_json(client.stdout.readline())
    assert ref.alive

    client.kill()
    client.wait()
    client.stdout.close()

    if survives:
        time.sleep(0.3)
        assert ref.alive
        ref.stop()
    eventually(lambda: not ref.alive, seconds=3)
