"""A training image holds a framework and boto3; it need not hold anything else for our sake."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kaptain_zen

SOURCES = str(Path(kaptain_zen.__file__).parents[1])
USE = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    before = set(sys.modules)
    from kaptain_zen.platform.model_export_util import ModelExportUtil
    from kaptain_zen.platform.metadata_util import MetadataUtil
    imported = sorted(
        {name.partition(".")[0] for name in set(sys.modules) - before}
        - set(sys.stdlib_module_names)
    )
    print(imported)
    ModelExportUtil().upload_model(__import__("os").path.join(sys.argv[2], "model"))
    MetadataUtil.record_metrics({"accuracy": 1})
    print("boto3" in sys.modules, "pydantic" in sys.modules)
    """
)


def test_it_works_where_nothing_but_python_is_installed(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    upload = tmp_path / "uploaded"
    done = subprocess.run(
        # -S leaves out installed packages, -I whatever the environment would add.
        [sys.executable, "-S", "-I", "-c", USE, SOURCES, str(tmp_path)],
        env={"TRAINED_MODEL_UPLOAD_PATH": upload.as_uri()},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["['kaptain_zen']", "accuracy=1.0", "False False"]
    assert sorted(path.name for path in upload.iterdir()) == ["metrics.json", "model"]


@pytest.mark.parametrize("module", ["asyncio", "multiprocessing", "email", "http", "inspect"])
def test_importing_it_does_not_load_the_slow_parts_of_the_standard_library(module: str) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import kaptain_zen.platform.model_export_util, kaptain_zen.platform.metadata_util\n"
        "print(sys.argv[2] in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code, SOURCES, module],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"
