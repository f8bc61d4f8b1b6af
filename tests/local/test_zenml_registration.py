"""Registering flavors and stacks: through our command's functions and through ZenML's own CLI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaptain_zen.exceptions import ConfigurationError

if TYPE_CHECKING:
    from zenml.client import Client

pytestmark = pytest.mark.usefixtures("zenml_client")


@pytest.fixture
def activated(zenml_client: Client):
    """Puts the active stack back."""
    from zenml.client import Client as AnyClient

    before = zenml_client.active_stack_model.id
    yield
    AnyClient().activate_stack(before)


def actions(done: list) -> dict[str, str]:
    return {registered.what: registered.action for registered in done}


def test_registering_flavors_again_changes_nothing() -> None:
    from kaptain_zen.components.registration import register_flavors

    register_flavors()
    assert set(actions(register_flavors()).values()) == {"unchanged"}


def test_a_flavor_that_an_older_release_registered_is_brought_up_to_date(
    zenml_client: Client,
) -> None:
    from zenml.enums import StackComponentType
    from zenml.models import FlavorUpdate

    from kaptain_zen.components.registration import register_flavors

    register_flavors()
    flavor = zenml_client.get_flavor_by_name_and_type(
        "kaptain_local", StackComponentType.MODEL_DEPLOYER
    )
    zenml_client.zen_store.update_flavor(
        flavor.id, FlavorUpdate(config_schema={"title": "old"}, source="kaptain_zen.old.Flavor")
    )
    done = actions(register_flavors())
    assert done["model deployer flavor kaptain_local"] == "updated"
    assert done["step operator flavor kaptain_local_tuner"] == "unchanged"
    again = zenml_client.get_flavor_by_name_and_type(
        "kaptain_local", StackComponentType.MODEL_DEPLOYER
    )
    assert again.source == "kaptain_zen.flavors.local.KaptainLocalModelDeployerFlavor"
    assert "home" in again.config_schema["properties"]


def test_a_flavors_path_does_not_depend_on_where_it_is_registered(zenml_client: Client) -> None:
    from zenml.enums import StackComponentType
    from zenml.utils import source_utils

    import kaptain_zen
    from kaptain_zen.components.registration import register_flavors

    # As in a checkout of this package, whose modules lie below ZenML's source root.
    source_utils.set_custom_source_root(str(Path(kaptain_zen.__file__).parents[2]))
    try:
        register_flavors()
    finally:
        source_utils.set_custom_source_root(None)
    flavor = zenml_client.get_flavor_by_name_and_type(
        "kaptain_local_trainer", StackComponentType.STEP_OPERATOR
    )
    assert flavor.source == "kaptain_zen.flavors.local.KaptainLocalTrainerFlavor"


def test_a_flavor_of_zenmls_own_is_never_overwritten(zenml_client: Client) -> None:
    from zenml.enums import StackComponentType
    from zenml.models import FlavorUpdate

    from kaptain_zen.components.registration import register_flavors

    register_flavors()
    flavor = zenml_client.get_flavor_by_name_and_type(
        "kaptain_local", StackComponentType.MODEL_DEPLOYER
    )
    zenml_client.zen_store.update_flavor(
        flavor.id, FlavorUpdate(is_custom=False, source="zenml.theirs.Flavor")
    )
    try:
        with pytest.raises(ConfigurationError, match="ZenML itself has"):
            register_flavors()
        theirs = zenml_client.get_flavor_by_name_and_type(
            "kaptain_local", StackComponentType.MODEL_DEPLOYER
        )
        assert theirs.source == "zenml.theirs.Flavor"
    finally:
        zenml_client.zen_store.update_flavor(flavor.id, FlavorUpdate(is_custom=True))
        register_flavors()


@pytest.mark.usefixtures("activated")
def test_a_stack_is_registered_once_and_then_only_what_differs_is_changed(
    zenml_client: Client, tmp_path: Path
) -> None:
    from zenml.client import Client as AnyClient

    from kaptain_zen.components.registration import register_flavors, register_local_stack

    register_flavors()
    home = str(tmp_path / "home")
    first = actions(register_local_stack("twice", home=home, activate=True))
    assert set(first) == {
        "step operator twice_trainer",
        "step operator twice_tuner",
        "model deployer twice_deployer",
        "stack twice",
        "active stack",
    }
    assert set(first.values()) == {"created", "updated"}
    assert AnyClient().active_stack_model.name == "twice"
    assert set(actions(register_local_stack("twice", home=home)).values()) == {"unchanged"}
    assert set(actions(register_local_stack("twice")).values()) == {"unchanged"}
    uri = (tmp_path / "models").as_uri()
    changed = register_local_stack("twice", storage_uri=uri)
    assert actions(changed)["step operator twice_trainer"] == "updated"
    assert actions(changed)["stack twice"] == "unchanged"
    assert f"--home={home} --storage_uri={uri}" in changed[0].command
    register_local_stack("twice", home="")
    stack = zenml_client.get_stack("twice")
    configurations = [c.configuration for cs in stack.components.values() for c in cs]
    assert [c for c in configurations if c] == [{"storage_uri": uri}] * 3


@pytest.mark.usefixtures("activated")
def test_what_a_user_added_to_the_stack_stays_and_ours_go_first(
    zenml_client: Client, tmp_path: Path
) -> None:
    from zenml.enums import StackComponentType

    from kaptain_zen.components.registration import register_flavors, register_local_stack

    register_flavors()
    register_local_stack("grown", home=str(tmp_path))
    operator = StackComponentType.STEP_OPERATOR
    zenml_client.create_stack_component("mine", "kaptain_local_trainer", operator, {})
    zenml_client.update_stack("grown", component_updates={operator: ["mine", "grown_tuner"]})
    register_local_stack("grown")
    names = [c.name for c in zenml_client.get_stack("grown").components[operator]]
    assert sorted(names[:2]) == ["grown_trainer", "grown_tuner"]
    assert names[2:] == ["mine"]


def test_wrong_values_are_refused_before_anything_is_registered(
    zenml_client: Client, tmp_path: Path
) -> None:
    from kaptain_zen.components.registration import register_flavors, register_local_stack

    register_flavors()
    for wrong, reason in (
        ({"home": "relative"}, "absolute path"),
        ({"storage_uri": "ftp://x"}, "s3://bucket/folder"),
        ({"orchestrator": "nobody"}, "no orchestrator 'nobody'"),
        ({"artifact_store": "nowhere"}, "no artifact store 'nowhere'"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            register_local_stack("refused", **wrong)
    assert not zenml_client.list_stack_components(name="startswith:refused").items


def test_a_component_of_another_flavor_is_left_alone(zenml_client: Client) -> None:
    from zenml.enums import StackComponentType

    from kaptain_zen.components.registration import register_flavors, register_local_stack

    register_flavors()
    zenml_client.create_stack_component(
        "taken_trainer", "kaptain_local_tuner", StackComponentType.STEP_OPERATOR, {}
    )
    with pytest.raises(ConfigurationError, match="exists already with flavor"):
        register_local_stack("taken")


@pytest.mark.usefixtures("activated")
def test_our_command_registers_a_stack_and_then_works_on_it(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from kaptain_zen.cli.main import app

    def kaptain_zen(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    home = tmp_path / "home"
    uri = (tmp_path / "models").as_uri()
    register = ("stack", "register", "local", "--name", "told", "--home", str(home))
    output = kaptain_zen(*register, "--storage-uri", uri, "--activate")
    assert "step operator told_tuner: created" in output
    assert f"zenml model-deployer register told_deployer --flavor=kaptain_local --home={home}" in (
        output
    )
    assert "zenml stack set told" in output
    assert "created" not in kaptain_zen(*register)
    assert "model deployer flavor kaptain_local: unchanged" in kaptain_zen("flavors", "register")
    assert kaptain_zen("models", "list") == f"No models at {uri}.\n"
    assert "nothing to remove" in kaptain_zen("cleanup")
    assert not home.exists()
    kaptain_zen("stack", "register", "local", "--home", "relative", code=1)


ZENML_COMMANDS = """
import sys
from zenml.cli.cli import cli
from click.testing import CliRunner

for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(cli, line.split()[1:])
    print(f"{result.exit_code} {line}")
    if result.exit_code:
        sys.exit(result.output + repr(result.exception))
"""


def test_zenmls_own_commands_register_flavors_components_and_a_stack(
    tmp_path: Path, process_environment: Callable[..., dict[str, str]]
) -> None:
    from kaptain_zen.components.registration import register_flavors, register_local_stack

    register_flavors()
    done = register_flavors() + register_local_stack("typed", home=str(tmp_path / "home"))
    commands = [registered.command for registered in done]
    # The shorter path of a flavor is as good.
    commands[0] = commands[0].replace("flavors.local.", "flavors.")
    finished = subprocess.run(
        [sys.executable, "-c", ZENML_COMMANDS],
        input="\n".join([*commands, "zenml stack set typed", "zenml stack describe typed"]),
        env=process_environment(
            ZENML_CONFIG_PATH=str(tmp_path / "config"),
            ZENML_LOCAL_STORES_PATH=str(tmp_path / "stores"),
        ),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert len([line for line in finished.stdout.splitlines() if line.startswith("0 ")]) == 9
