"""Small models to train: scripts of milliseconds that need the standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kaptain_zen.model.models import Model
from kaptain_zen.platform.platform import Platform, local

# Its accuracy is best at x = 0.5; `--exit`, `--sleep`, `--silent` and `--forget` make it misbehave.
SCRIPT = """
import argparse, json, os, sys, time
from kaptain_zen.platform.model_export_util import ModelExportUtil
from kaptain_zen.platform.metadata_util import MetadataUtil

parser = argparse.ArgumentParser()
parser.add_argument("words", nargs="*")
parser.add_argument("--x", type=float, default=0.5)
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--sleep", type=float, default=0)
parser.add_argument("--silent", default="")
parser.add_argument("--forget", default="")
parser.add_argument("--started", default="")
options = parser.parse_args()
print("words", options.words, "Estimator(C=1.0)", flush=True)
if options.started:
    with open(options.started, "a") as file:
        file.write(f"{os.getpid()}\\n")
time.sleep(options.sleep)
if options.exit:
    print("something went wrong: the disk is made of cheese", file=sys.stderr)
    sys.exit(options.exit)
with open("model.json", "w") as file:
    json.dump({"x": options.x}, file)
if not options.forget:
    ModelExportUtil().upload_model("model.json")
if not options.silent:
    MetadataUtil.record_metrics({"accuracy": 1 - abs(options.x - 0.5), "size": 3})
"""

PROPERTIES: dict[str, Any] = {
    "id": "dev/tiny",
    "name": "Tiny",
    "description": "A model of one number",
    "version": "1",
    "framework": "sklearn",
    "framework_version": "1.9",
    "main_file": "training.py",
    "image_name": "me/tiny",
    "base_image": "python",
}


def tiny_platform(folder: Path, **arguments: Any) -> Platform:
    """A local platform below a folder, with the script of the tiny model beside it."""
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "training.py").write_text(SCRIPT)
    return local(home=str(folder / "home"), base_dir=code, **arguments)


def tiny_model(platform: Platform, **changes: Any) -> Model:
    """The tiny model, untrained."""
    return Model(**{**PROPERTIES, **changes}, platform=platform)
