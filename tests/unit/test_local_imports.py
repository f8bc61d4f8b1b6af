"""Which imports of a script may be done before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaptain_zen.platform.local.imports import leading_imports
from kaptain_zen.platform.local.planning import imports_ahead


def found(tmp_path: Path, script: str, **modules: str) -> list[str]:
    (tmp_path / "training.py").write_text(script)
    for name, source in modules.items():
        path = tmp_path / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return list(leading_imports(tmp_path / "training.py", [tmp_path]))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        ("import a", ["import a"]),
        ("import a.b as c, d", ["import a.b", "import d"]),
        ("from a.b import c as x, d", ["from a.b import c, d"]),
        ("from a import *", ["from a import *"]),
        ("import a\nimport a", ["import a"]),
        ("from __future__ import annotations\nimport a", ["import a"]),
        ("'''Doc.'''\nX = 1\ndef f():\n    import no\nimport a", ["import a"]),
        ("class C:\n    import no\nimport a", ["import a"]),
        (
            "try:\n    import a\nexcept ImportError:\n    a = None\nimport b",
            ["import a", "import b"],
        ),
        ("if True:\n    import no\nimport a", ["import a"]),
        (
            "import warnings\nwarnings.simplefilter('ignore')\nimport a",
            ["import warnings", "import a"],
        ),
        ("import os\nX = os.environ.get('X')\nimport a", ["import os", "import a"]),
        ("import os\nX = os.environ['X']\nimport a", ["import os", "import a"]),
        ("import os\nif 'X' in os.environ: pass\nimport a", ["import os", "import a"]),
        ("import os\nX = os.path.join('a', 'b')\nimport a", ["import os", "import a"]),
        # What stands after one of these may depend on it.
        ("import os\nos.environ['X'] = '1'\nimport a", ["import os"]),
        ("import os\nos.environ.setdefault('X', '1')\nimport a", ["import os"]),
        ("import os\nos.environ.update(X='1')\nimport a", ["import os"]),
        ("import os\ndel os.environ['X']\nimport a", ["import os"]),
        ("from os import environ\nenviron['X'] = '1'\nimport a", ["from os import environ"]),
        ("import os\nos.putenv('X', '1')\nimport a", ["import os"]),
        ("import os\nos.chdir('/')\nimport a", ["import os"]),
        ("import sys\nsys.path.insert(0, 'x')\nimport a", ["import sys"]),
        ("import sys\nsys.path = []\nimport a", ["import sys"]),
        ("import sys\nsys.modules['a'] = None\nimport a", ["import sys"]),
        ("import sys\nif len(sys.argv) > 1:\n    import no\nimport a", ["import sys"]),
        (
            "from dotenv import load_dotenv\nload_dotenv()\nimport a",
            ["from dotenv import load_dotenv"],
        ),
        ("if __name__ == '__main__':\n    import no\nimport a", []),
        ("import a\ndef (:", []),
    ],
)
def test_imports_of_the_main_file(tmp_path: Path, script: str, expected: list[str]) -> None:
    assert found(tmp_path, script) == expected


def test_the_model_s_own_modules_are_looked_through_in_order(tmp_path: Path) -> None:
    assert found(
        tmp_path,
        "import first\nimport helper\nfrom pack.inner import x\nimport last",
        helper="import of_helper\nimport training",
        pack__in____init__="import of_pack",
        pack__in__inner="from . import sibling\nfrom .sibling import y\nimport of_inner",
        pack__in__sibling="import of_sibling",
    ) == [
        *("import first", "import of_helper", "import of_pack"),
        *("import of_sibling", "import of_inner", "import last"),
    ]


def test_a_module_that_changes_the_environment_ends_the_search(tmp_path: Path) -> None:
    assert found(
        tmp_path,
        "import first\nimport setup_env\nimport last",
        setup_env="import os\nos.environ['OMP_NUM_THREADS'] = '1'",
    ) == ["import first", "import os"]


def test_a_folder_of_data_does_not_hide_a_package(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    assert found(tmp_path, "import datasets") == ["import datasets"]


def test_files_that_are_missing_are_left_to_the_run(tmp_path: Path) -> None:
    assert leading_imports(tmp_path / "nowhere.py", [tmp_path]) == ()


@given(st.text() | st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_makes_it_fail(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "training.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    assert isinstance(leading_imports(path, [tmp_path]), tuple)


def test_imports_that_take_no_time_are_not_worth_it(tmp_path: Path) -> None:
    main = tmp_path / "training.py"
    main.write_text("import json\nfrom kaptain_zen.platform.metadata_util import MetadataUtil")
    assert imports_ahead(main, tmp_path, "file:///x") == ()
    assert imports_ahead(main, tmp_path, "s3://bucket/x")[-1].startswith("import boto3")
    main.write_text("import json, sklearn")
    assert imports_ahead(main, tmp_path, "file:///x") == ("import json", "import sklearn")
