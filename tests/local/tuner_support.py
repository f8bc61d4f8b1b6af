"""What the tests of the tuner share: a platform of real parts, and a script of milliseconds."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.search_support import SPEC

from kaptain_zen.config import Config
from kaptain_zen.hyperparameter.domains import Double
from kaptain_zen.model.ports import Store, TuneRequest
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.trainer import LocalTrainer
from kaptain_zen.platform.local.tuner import OptunaTuner
from kaptain_zen.storage.store import open_store

SCRIPT = textwrap.dedent(
    """
    import argparse, os, sys, time
    from pathlib import Path

    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float, default=0.0)
    parser.add_argument("--journal")       # a line for every start and end
    parser.add_argument("--print", default="accuracy={x}")
    parser.add_argument("--fail", default="False")
    parser.add_argument("--hang", default="False")
    parser.add_argument("--upload", default="True")
    parser.add_argument("--seconds", default="0")
    args, _ = parser.parse_known_args()
    x = args.x
    name = os.environ["TRAINED_MODEL_UPLOAD_PATH"].rstrip("/").rpartition("/")[2]

    def note(what):
        if args.journal:
            with open(args.journal, "a") as file:
                file.write(f"{what} {name}\\n")

    note("start")
    time.sleep(eval(args.seconds))
    if eval(args.fail):
        print("boom at", x)
        sys.exit(3)
    for line in args.print.format(x=x, y=-x).split(";"):
        print(line, flush=True)
    if eval(args.upload):
        from kaptain_zen.platform.model_export_util import ModelExportUtil
        from kaptain_zen.platform.metadata_util import MetadataUtil

        Path("model.txt").write_text(str(x))
        ModelExportUtil().upload_model("model.txt")
    while eval(args.hang):
        time.sleep(0.05)
    note("end")
    """
)


@dataclass(frozen=True)
class Laptop:
    """A local platform below one folder.

    Attributes:
        root: The folder; another process can make the same platform from it.
    """

    root: Path
    home: LocalHome = field(init=False)
    store: Store = field(init=False)
    trainer: LocalTrainer = field(init=False)
    tuner: OptunaTuner = field(init=False)

    def __post_init__(self) -> None:
        (self.root / "code").mkdir(parents=True, exist_ok=True)
        (self.root / "code" / "train.py").write_text(SCRIPT)
        home = LocalHome(self.root / "home")
        store = open_store(Config(base_model_storage_uri=self.uri("")))
        trainer = LocalTrainer(home, environment={}, warm_start=False)
        for name, value in (
            ("home", home),
            ("store", store),
            ("trainer", trainer),
            ("tuner", OptunaTuner(home, trainer=trainer, store=store)),
        ):
            object.__setattr__(self, name, value)

    @property
    def storage(self) -> Path:
        return self.root / "models"

    @property
    def journal(self) -> Path:
        """What the scripts wrote."""
        return self.root / "journal"

    def uri(self, path: str) -> str:
        return f"{self.storage.as_uri()}/{path}".rstrip("/")

    def request(self, **changes: Any) -> TuneRequest:
        """A search over `x`, whose accuracy is `x`."""
        values: dict[str, Any] = {
            "name": "tiny-tune",
            "spec": SPEC,
            "base_dir": self.root / "code",
            "upload_uri": self.uri("tuned/1"),
            "trials_uri": self.uri("trials/tiny-tune"),
            "objectives": ("accuracy",),
            "hyperparameters": {"x": Double(0, 1)},
            "trials": 4,
            "annotation": "the record",
            **changes,
        }
        values["kwargs"] = {"journal": str(self.journal), **values.get("kwargs", {})}
        return TuneRequest(**values)

    def noted(self, what: str) -> list[str]:
        """Names of the trials that noted something, in order."""
        if not self.journal.exists():
            return []
        lines = (line.split() for line in self.journal.read_text().splitlines())
        return [name for kind, name in lines if kind == what]

    def runs(self) -> list[str]:
        """Folders of trials that are left."""
        return sorted(p.name for p in self.home.runs.glob("tiny-tune-*"))

    def stored(self) -> dict[str, str]:
        """Everything in the storage."""
        return {
            str(p.relative_to(self.storage)): p.read_text()
            for p in self.storage.rglob("*")
            if p.is_file()
        }
