"""The command itself: what it costs to start, how it shows errors, how it reads ages."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen import __version__
from kaptain_zen.cli.leftovers import parse_age
from kaptain_zen.exceptions import ConfigurationError


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "kaptain_zen", *arguments],
        env={**os.environ, "KAPTAIN_SDK_DEBUG": "", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_showing_help_loads_neither_zenml_nor_anything_heavy() -> None:
    code = (
        "import json, sys\n"
        "from kaptain_zen.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded.isdisjoint(
        {"zenml", "pydantic", "kubernetes", "boto3", "optuna", "mlserver", "sklearn", "sqlalchemy"}
    )


def test_every_command_is_in_the_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("flavors", "stack", "models", "canary", "undeploy", "cleanup"):
        assert command in done.stdout


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"kaptain-zen {__version__}\n"


def test_an_error_is_one_message_on_stderr_and_no_traceback() -> None:
    done = run("cleanup", "--older-than", "yesterday")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: 'yesterday' is no age.")
    assert "Traceback" not in done.stderr


def test_the_traceback_is_shown_on_demand() -> None:
    done = run("cleanup", "--older-than", "yesterday", KAPTAIN_SDK_DEBUG="true")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_wrong_switch_does_not_hide_the_error() -> None:
    done = run("cleanup", "--older-than", "yesterday", KAPTAIN_SDK_DEBUG="perhaps")
    assert done.returncode == 1
    assert "is no age" in done.stderr


def test_a_model_that_nothing_is_known_of_is_named_with_where_it_was_looked_for(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    done = run("models", "show", "dev/nobody", "--home", str(home))
    assert done.returncode == 1
    assert "dev/nobody" in done.stderr
    assert home.as_uri() in done.stderr


@given(
    st.integers(0, 10_000),
    st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)]),
    st.sampled_from(["", " "]),
)
def test_an_age_is_a_number_and_a_unit(number: int, unit: tuple[str, int], space: str) -> None:
    assert parse_age(f"{number}{space}{unit[0]}") == timedelta(seconds=number * unit[1])


@given(st.text(max_size=12).filter(lambda text: not text.strip()[:1].isdigit()))
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="for example 12h or 7d"):
        parse_age(text)


@pytest.mark.parametrize("text", ["5", "5 years", "-1d", "1e3s", "5d5h", "5 d d"])
def test_a_number_alone_is_no_age(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no age"):
        parse_age(text)


def test_an_age_beyond_all_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="longer than any run"):
        parse_age("99999999999w")
