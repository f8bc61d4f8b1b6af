"""What the canary router costs: requests per second and latency, against MLServer directly.

    python benchmarks/router.py [--rounds 5] [--seconds 2] [--clients 8]

Deploys the digits model on the local platform, then asks the same MLServer process in turns: over
its own port, and through the router. Both are measured side by side, in short rounds, because
absolute numbers mean little on a machine that does other things as well. The load comes from a
process of its own that does nothing but write and read bytes on kept connections.

Goals: at least 0.8 times the requests per second; less than 2 ms added to the 99th percentile of a
client that asks one request after the other.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

GOAL_RATIO, GOAL_ADDED_MS = 0.8, 2.0
WARM_UP = 0.5


def generate(port: int, path: str, body: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Ask as fast as answers come, over so many connections."""
    request = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    selector = selectors.DefaultSelector()
    sent: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        received[connection] = b""
    took: list[float] = []
    failures = 0
    began = time.perf_counter()
    for connection in received:
        sent[connection] = time.perf_counter()
        connection.sendall(request)
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in selector.select(1):
            connection = key.fileobj  # type: ignore[assignment]  # only sockets are registered
            data = received[connection] + connection.recv(65536)
            if not complete(data):
                received[connection] = data
                continue
            now = time.perf_counter()
            took.append(now - sent[connection])
            failures += not data.startswith(b"HTTP/1.1 200")
            received[connection] = b""
            sent[connection] = now
            connection.sendall(request)
    elapsed = time.perf_counter() - began
    for connection in received:
        connection.close()
    took.sort()
    return {
        "failures": failures,
        "rate": len(took) / elapsed,
        "p50": 1000 * took[len(took) // 2],
        "p99": 1000 * took[int(len(took) * 0.99)],
    }


def complete(data: bytes) -> bool:
    """Whether a whole response is here."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return False
    lower = head.lower()
    start = lower.find(b"content-length:")
    if start < 0:
        return rest.endswith(b"0\r\n\r\n")
    end = lower.find(b"\r\n", start)
    return len(rest) >= int(lower[start + 15 : end if end >= 0 else None])


def deploy(folder: Path) -> tuple[Any, Any, list[float]]:
    """Serve the digits model; the server, its service, an image."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    from kaptain_zen.config import Config
    from kaptain_zen.model import states
    from kaptain_zen.model.resources import Resources
    from kaptain_zen.model.spec import ModelSpec
    from kaptain_zen.platform.local.home import LocalHome
    from kaptain_zen.platform.local.server import LocalServer
    from kaptain_zen.storage.store import open_store

    digits = load_digits()
    data = digits.images.reshape(len(digits.images), -1)
    model = folder / "models" / "digits"
    model.mkdir(parents=True)
    joblib.dump(SVC(gamma=0.001).fit(data[:898], digits.target[:898]), model / "model.joblib")
    spec = ModelSpec(
        id="bench/digits",
        name="Digits",
        description="Digits",
        version="1",
        framework="sklearn",
        framework_version="1",
        main_file="none.py",
        image_name="none",
        base_image="none",
    )
    store = open_store(Config(base_model_storage_uri=(folder / "models").as_uri()))
    server = LocalServer(LocalHome(folder / "home"), store=store)
    now = datetime.now(UTC)
    record = states.deployed(
        states.new(spec, revision=uuid4().hex, now=now),
        revision=uuid4().hex,
        now=now,
        uri=model.as_uri(),
        resources=Resources.choose(None, cpu="0.5", memory="500M"),
    )
    return server, server.apply(record, resource_version=None), data[7].tolist()


def measure(port: int, path: str, row: list[float], clients: int, seconds: float) -> dict[str, Any]:
    """Run the load in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--load", str(port), path, str(clients), str(seconds)],
        input=json.dumps(row),
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["failures"]:
        sys.exit(f"{result['failures']} requests failed on port {port}")
    return result


def compare(ports: dict[str, int], path: str, row: list[float], options: Any) -> None:
    """Measure in turns, and print."""
    for port in ports.values():
        measure(port, path, row, options.clients, WARM_UP)
    load: dict[str, list[dict[str, Any]]] = {"direct": [], "routed": []}
    single: dict[str, list[dict[str, Any]]] = {"direct": [], "routed": []}
    for number in range(options.rounds):
        # Whoever comes second finds the machine warmer, so they take turns in that as well.
        for name in sorted(ports, reverse=bool(number % 2)):
            load[name].append(measure(ports[name], path, row, options.clients, options.seconds))
            single[name].append(measure(ports[name], path, row, 1, options.seconds))
    rate = {name: statistics.median(r["rate"] for r in rounds) for name, rounds in load.items()}
    ratio = statistics.median(
        routed["rate"] / direct["rate"]
        for direct, routed in zip(load["direct"], load["routed"], strict=True)
    )
    print(f"{options.rounds} rounds of {options.seconds:g} s, medians")
    print(f"{'':24}{'MLServer':>12}{'router':>12}")
    clients = f"requests/s, {options.clients} clients"
    print(f"{clients:24}{rate['direct']:12.0f}{rate['routed']:12.0f}   ratio {ratio:.2f}")
    added = 0.0
    for percentile in ("p50", "p99"):
        direct, routed = (
            statistics.median(r[percentile] for r in single[name]) for name in ("direct", "routed")
        )
        added = routed - direct
        label = f"{percentile} ms, 1 client"
        print(f"{label:24}{direct:12.2f}{routed:12.2f}   added {added:.2f}")
    verdict = "met" if ratio >= GOAL_RATIO and added < GOAL_ADDED_MS else "MISSED"
    print(f"goals (ratio >= {GOAL_RATIO}, p99 added < {GOAL_ADDED_MS} ms): {verdict}")


def main() -> None:
    """Run the benchmark, or the load."""
    if sys.argv[1:2] == ["--load"]:
        port, path, clients, seconds = sys.argv[2:6]
        row = json.load(sys.stdin)
        tensor = {"name": "predict", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        body = json.dumps({"inputs": [tensor]}).encode()
        print(json.dumps(generate(int(port), path, body, int(clients), float(seconds))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, service, row = deploy(Path(folder))
        try:
            state = json.loads(
                (Path(folder) / "home/services/bench-digits/service.json").read_text()
            )
            ports = {"direct": state["servers"][0]["port"], "routed": urlsplit(service.url).port}
            compare(ports, urlsplit(service.prediction_url).path, row, options)
        finally:
            server.delete(service.model_id)


if __name__ == "__main__":
    main()
