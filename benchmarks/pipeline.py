"""The digits pipeline against a script by hand that does the same with plain subprocesses.

By hand: train once, run 12 trials two at a time, start MLServer on the best model, ask it once.
Ours: the example's pipeline `train_tune_deploy` on the local stack, in a process of its own, from
the start of the interpreter to the prediction. The stack is registered beforehand.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROUNDS = 3
TRIALS = 12
EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
BY_HAND = """
import sys
from joblib import dump
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report
from sklearn.svm import SVC
gamma, c, target = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
digits = load_digits()
pixels = digits.images.reshape(len(digits.images), -1)
half = len(pixels) // 2
classifier = SVC(C=c, gamma=gamma).fit(pixels[:half], digits.target[:half])
print(classification_report(digits.target[half:], classifier.predict(pixels[half:])))
print(f"accuracy={classifier.score(pixels[half:], digits.target[half:])}")
dump(classifier, target)
"""
OURS = """
import json
from pipeline import train_tune_deploy
run = train_tune_deploy()
seconds = {
    name: (step.end_time - step.start_time).total_seconds() for name, step in run.steps.items()
}
digit = int(run.steps["predict"].outputs["predictions"][0].load()[0])
print("RESULT", json.dumps({"steps": seconds, "digit": digit}))
"""
UNDEPLOY = """
from description import DIGITS
from kaptain_zen import Model
from kaptain_zen.platform.platform import from_active_stack
Model.load(DIGITS.id, platform=from_active_stack()).undeploy()
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kaptain-bench-") as folder:
        environment = prepare(Path(folder))
        # ZenML wants scripts to be files beside the pipeline.
        code = Path(shutil.copytree(EXAMPLE, Path(folder) / "code"))
        (code / "ours.py").write_text(OURS)
        (code / "undeploy.py").write_text(UNDEPLOY)
        rows = []
        for _ in range(ROUNDS):
            rows.append((by_hand(), ours(code, environment)))
            command = [sys.executable, "undeploy.py"]
            subprocess.run(command, cwd=code, env=environment, check=True, capture_output=True)
    print(f"train, tune({TRIALS}), deploy, predict: medians of {ROUNDS} alternating rounds")
    print(f"{'':10}{'by hand':>10}{'ours':>10}{'ratio':>8}{'goal':>8}")
    goals = {"train": "", "tune": "0.25", "deploy": "", "whole": "0.50"}
    for phase, goal in goals.items():
        hand = statistics.median(row[0][phase] for row in rows)
        mine = statistics.median(row[1][phase] for row in rows)
        print(f"{phase:10}{hand:9.2f}s{mine:9.2f}s{mine / hand:8.2f}{goal:>8}")


def prepare(folder: Path) -> dict[str, str]:
    """A registered stack below a folder; registering it is not part of the measurement."""
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
        "ZENML_LOCAL_STORES_PATH": str(folder / "stores"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "KAPTAIN_ZEN_HOME": str(folder / "home"),
    }
    command = Path(sys.executable).parent / "kaptain-zen"
    subprocess.run(
        [command, "stack", "register", "local", "--activate"],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return environment


def by_hand() -> dict[str, float]:
    """Plain subprocesses; seconds by phase."""
    folder = Path(tempfile.mkdtemp(prefix="kaptain-bench-hand-"))
    draw = random.Random(0)
    try:
        begun = time.perf_counter()
        train(0.001, 1.0, folder / "trained.joblib")
        trained = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            points = [(draw.uniform(0.0001, 0.001), draw.uniform(0.01, 1.0)) for _ in range(TRIALS)]
            targets = [folder / f"{number}.joblib" for number in range(TRIALS)]
            scores = list(pool.map(train, *zip(*points, strict=True), targets))
        tuned = time.perf_counter()
        best = targets[scores.index(max(scores))]
        serve(folder / "server", best)
        served = time.perf_counter()
    finally:
        shutil.rmtree(folder)
    return {
        "train": trained - begun,
        "tune": tuned - trained,
        "deploy": served - tuned,
        "whole": served - begun,
    }


def train(gamma: float, c: float, target: Path) -> float:
    """One training as a plain subprocess."""
    output = subprocess.run(
        [sys.executable, "-c", BY_HAND, str(gamma), str(c), str(target)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return float(output.rpartition("accuracy=")[2])


def serve(folder: Path, model: Path) -> None:
    """Start MLServer as its documentation says, ask it once, stop it."""
    folder.mkdir()
    shutil.copy(model, folder / "model.joblib")
    ports = [free_port() for _ in range(3)]
    settings = {
        "host": "127.0.0.1",
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "digits",
                "implementation": "mlserver_sklearn.SKLearnModel",
                "parameters": {"uri": "./model.joblib"},
            }
        )
    )
    command = Path(sys.executable).parent / "mlserver"
    server = subprocess.Popen(
        [command, "start", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{ports[0]}/v2/models/digits"
        deadline = time.monotonic() + 120
        while not answers(f"{url}/ready"):
            assert time.monotonic() < deadline, "MLServer did not get ready"
            time.sleep(0.02)
        values = [0.0] * 64
        inputs = [{"name": "predict", "shape": [1, 64], "datatype": "FP32", "data": values}]
        request = urllib.request.Request(
            f"{url}/infer",
            json.dumps({"inputs": inputs}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).read()
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(code: Path, environment: dict[str, str]) -> dict[str, float]:
    """The pipeline in a process of its own; seconds by phase."""
    begun = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "ours.py"], cwd=code, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    whole = time.perf_counter() - begun
    result = json.loads(finished.stdout.rpartition("RESULT ")[2])
    assert result["digit"] == 7, result
    steps = result["steps"]
    return {
        "train": steps["train_model"],
        "tune": steps["tune_model"],
        "deploy": steps["deploy_model"],
        "whole": whole,
    }


if __name__ == "__main__":
    main()
