"""Deploy a model, replace it with a better one under load, refuse a worse one.

    python run.py --fresh ../../.demo-cd

Everything is kept below the folder; the service is removed at the end.
"""

import argparse
import os
import shutil
import sys
import threading
from pathlib import Path

VERSIONS = {
    "a first model": {"gamma": 0.0001, "c": 0.5},
    "a better one": {"gamma": 0.001, "c": 1.0},
    "a worse one": {"gamma": 0.0002, "c": 0.2},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", type=Path, required=True, help="folder for everything")
    folder = parser.parse_args().fresh.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ.update(
        ZENML_CONFIG_PATH=str(folder / "zenml"),
        ZENML_LOCAL_STORES_PATH=str(folder / "stores"),
        ZENML_ANALYTICS_OPT_IN="false",
        KAPTAIN_ZEN_HOME=str(folder / "home"),
    )
    os.chdir(Path(__file__).parent)

    # Only now, because ZenML reads its environment when it is imported.
    from pipeline import MODEL, continuous_deployment

    from kaptain_zen import Model
    from kaptain_zen.components.registration import register_flavors, register_local_stack
    from kaptain_zen.platform.platform import from_active_stack

    register_flavors()
    register_local_stack("digits", activate=True)
    platform = from_active_stack()
    load = Load()
    deployed = []
    for name, hyperparameters in VERSIONS.items():
        run = continuous_deployment(**hyperparameters)
        record = run.steps["deploy_model"].outputs["model_record"][0].load()
        good = run.steps["deployment_trigger"].outputs["deploy"][0].load()
        deployed.append(record.deployment.baseline.revision)
        accuracy = record.metrics["accuracy"].latest
        print(f"{name}: accuracy {accuracy:.4f}, {'deployed' if good else 'not deployed'}")
        if not load.running:
            load.start(Model.load(MODEL.id, platform=platform))
    answered, failed = load.stop()
    print(f"meanwhile {answered} requests were answered and {failed} failed")
    Model.load(MODEL.id, platform=platform).undeploy()
    as_expected = deployed[0] != deployed[1] == deployed[2] and answered > 0 and failed == 0
    return 0 if as_expected else 1


class Load:
    """Somebody who asks for predictions all the time."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.answered = self.failed = 0

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self, model: object) -> None:
        self._thread = threading.Thread(target=self._ask, args=(model,), daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        self._stop.set()
        if self._thread:
            self._thread.join()
        return self.answered, self.failed

    def _ask(self, model: object) -> None:
        while not self._stop.is_set():
            try:
                model.predict([[0.0] * 64])
            except Exception as error:
                self.failed += 1
                print(f"a request failed: {error}", file=sys.stderr)
            else:
                self.answered += 1


if __name__ == "__main__":
    raise SystemExit(main())
