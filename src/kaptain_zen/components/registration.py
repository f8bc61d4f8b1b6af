"""Registering our flavors and a stack of them, as often as one likes.

ZenML's own commands refuse to register what exists; these bring what exists up to date.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.flavors import FLAVORS
from kaptain_zen.flavors.local import (
    LOCAL_MODEL_DEPLOYER_FLAVOR,
    LOCAL_TRAINER_FLAVOR,
    LOCAL_TUNER_FLAVOR,
)

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.enums import StackComponentType
    from zenml.models import ComponentResponse, StackResponse

DEFAULT_STACK = "kaptain_local"
DEFAULT_COMPONENT = "default"
"""Name of the orchestrator and the artifact store that every ZenML store begins with."""

_FLAGS = {
    "orchestrator": "-o",
    "artifact_store": "-a",
    "step_operator": "-s",
    "model_deployer": "-d",
}
"""Options of `zenml stack register`; its long ones are spelt in two ways."""


@dataclass(frozen=True)
class Registered:
    """What became of one registration.

    Attributes:
        what: Kind and name, for people.
        action: What was done.
        command: The ZenML command that a newly made one stands for.
    """

    what: str
    action: Literal["created", "updated", "unchanged"]
    command: str


def register_flavors() -> list[Registered]:
    """Register all flavors of this package, or bring their registrations up to date.

    Returns:
        What was done about each.

    Raises:
        ConfigurationError: A flavor of ZenML itself has the same name.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    return [
        _register_flavor(client, path, StackComponentType(kind)) for path, kind in FLAVORS.items()
    ]


def _register_flavor(client: Client, path: str, kind: StackComponentType) -> Registered:
    from zenml.models import FlavorUpdate
    from zenml.stack.flavor import validate_flavor_source

    _, flavor = validate_flavor_source(path, kind)
    what = f"{_words(kind)} flavor {flavor.name}"
    command = f"zenml {_dashed(kind)} flavor register {path}"
    # ZenML derives the path to store from where the module's file lies below its source root, which
    # in a checkout gives one that nobody else can import.
    request = flavor.to_model(integration="custom", is_custom=True).model_copy(
        update={"source": path}
    )
    found = client.list_flavors(name=f"equals:{flavor.name}", type=kind.value, hydrate=True).items
    if not found:
        client.zen_store.create_flavor(flavor=request)
        return Registered(what, "created", command)
    existing = found[0]
    if not existing.is_custom:
        raise ConfigurationError(
            f"ZenML itself has a {_words(kind)} flavor {flavor.name!r} now, so ours cannot be "
            f"registered. Use a release of kaptain-zen that fits this release of ZenML."
        )
    wanted = request.model_dump()
    update = FlavorUpdate.model_validate(wanted)
    if all(getattr(existing, key) == value for key, value in _comparable(wanted, existing)):
        return Registered(what, "unchanged", command)
    client.zen_store.update_flavor(existing.id, update)
    return Registered(what, "updated", command)


def _comparable(wanted: Mapping[str, Any], existing: Any) -> list[tuple[str, Any]]:
    """What a stored flavor can be compared by; it knows users and times besides."""
    return [
        (key, value) for key, value in wanted.items() if key != "user" and hasattr(existing, key)
    ]


def register_local_stack(
    name: str = DEFAULT_STACK,
    *,
    home: str | None = None,
    storage_uri: str | None = None,
    orchestrator: str | None = None,
    artifact_store: str | None = None,
    activate: bool = False,
) -> list[Registered]:
    """Register a stack of the local platform, or bring it up to date.

    The components are named after the stack: `<name>_trainer`, `<name>_tuner`, `<name>_deployer`.
    What is not given stays as it is; other components that the stack has stay too.

    Args:
        name: Of the stack.
        home: Folder for runs and services; blank to go back to the default.
        storage_uri: Folder in the storage for all models; blank to go back to the default.
        orchestrator: Name of a registered orchestrator; `default` for a new stack.
        artifact_store: Name of a registered artifact store; `default` for a new stack.
        activate: Whether to make it the active stack.

    Returns:
        What was done about each component and the stack. The flavors must be registered already.

    Raises:
        ConfigurationError: A value is wrong, or a component of another flavor has the name.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    operator, deployer = StackComponentType.STEP_OPERATOR, StackComponentType.MODEL_DEPLOYER
    wanted = {"home": home, "storage_uri": storage_uri}
    trainer, tuner, server = f"{name}_trainer", f"{name}_tuner", f"{name}_deployer"
    _check_configuration(wanted)
    base = _base_components(client, orchestrator, artifact_store)
    done = [
        _register_component(client, operator, trainer, LOCAL_TRAINER_FLAVOR, wanted),
        _register_component(client, operator, tuner, LOCAL_TUNER_FLAVOR, wanted),
        _register_component(client, deployer, server, LOCAL_MODEL_DEPLOYER_FLAVOR, wanted),
    ]
    done.append(
        _register_stack(client, name, base, {operator: [trainer, tuner], deployer: [server]})
    )
    if activate:
        if client.active_stack_model.name == name:
            action: Literal["updated", "unchanged"] = "unchanged"
        else:
            client.activate_stack(name)
            action = "updated"
        done.append(Registered("active stack", action, f"zenml stack set {shlex.quote(name)}"))
    return done


def _check_configuration(wanted: Mapping[str, str | None]) -> None:
    """Refuse wrong values before anything is registered."""
    from pydantic import ValidationError

    from kaptain_zen.flavors.local import LocalPlatformConfig

    try:
        LocalPlatformConfig(**{key: value for key, value in wanted.items() if value})
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{reason}.") from None


def _base_components(
    client: Client, orchestrator: str | None, artifact_store: str | None
) -> dict[StackComponentType, str | None]:
    """Check that the components that are not ours exist."""
    from zenml.enums import StackComponentType

    base = {
        StackComponentType.ORCHESTRATOR: orchestrator,
        StackComponentType.ARTIFACT_STORE: artifact_store,
    }
    for kind, name in base.items():
        if name and _component(client, kind, name) is None:
            raise ConfigurationError(
                f"There is no {_words(kind)} {name!r}. `zenml {_dashed(kind)} list` shows those "
                f"that are registered."
            )
    return base


def _component(client: Client, kind: StackComponentType, name: str) -> ComponentResponse | None:
    found = client.list_stack_components(type=kind, name=f"equals:{name}", hydrate=True).items
    return found[0] if found else None


def _register_component(
    client: Client,
    kind: StackComponentType,
    name: str,
    flavor: str,
    wanted: Mapping[str, str | None],
) -> Registered:
    existing = _component(client, kind, name)
    if existing is not None and existing.flavor_name != flavor:
        raise ConfigurationError(
            f"The {_words(kind)} {name!r} exists already with flavor {existing.flavor_name!r}. "
            f"Choose another name for the stack, or remove it with `zenml {_dashed(kind)} delete "
            f"{name}`."
        )
    before = dict(existing.configuration) if existing else {}
    given = {key: value.strip() or None for key, value in wanted.items() if value is not None}
    after = {key: value for key, value in {**before, **given}.items() if value is not None}
    what = f"{_words(kind)} {name}"
    options = "".join(f" --{key}={shlex.quote(str(value))}" for key, value in after.items())
    command = f"zenml {_dashed(kind)} register {shlex.quote(name)} --flavor={flavor}{options}"
    if existing is None:
        client.create_stack_component(name, flavor, kind, after)
        return Registered(what, "created", command)
    if after == before:
        return Registered(what, "unchanged", command)
    client.update_stack_component(existing.id, kind, configuration=given)
    return Registered(what, "updated", command)


def _register_stack(
    client: Client,
    name: str,
    base: Mapping[StackComponentType, str | None],
    ours: Mapping[StackComponentType, list[str]],
) -> Registered:
    found = client.list_stacks(name=f"equals:{name}", hydrate=True).items
    existing: StackResponse | None = found[0] if found else None
    present = (
        {kind: [c.name for c in components] for kind, components in existing.components.items()}
        if existing
        else {}
    )
    wanted = {
        **present,
        **{
            kind: [chosen] if chosen else present.get(kind, [DEFAULT_COMPONENT])
            for kind, chosen in base.items()
        },
        **{
            kind: names
            if kind.value == "model_deployer"
            # A stack may have several step operators. Ours go first, because ZenML asks the first
            # one about steps that run at the same time in a dynamic pipeline.
            else [*names, *(n for n in present.get(kind, []) if n not in names)]
            for kind, names in ours.items()
        },
    }
    command = f"zenml stack register {shlex.quote(name)}" + "".join(
        f" {_FLAGS.get(kind.value, '--' + kind.value)} {shlex.quote(component)}"
        for kind, components in wanted.items()
        for component in components
    )
    what = f"stack {name}"
    if existing is None:
        client.create_stack(name, dict(wanted))
        return Registered(what, "created", command)
    if wanted == present:
        return Registered(what, "unchanged", command)
    client.update_stack(existing.id, component_updates=dict(wanted))
    return Registered(what, "updated", command)


def _dashed(kind: StackComponentType) -> str:
    return kind.value.replace("_", "-")


def _words(kind: StackComponentType) -> str:
    return kind.value.replace("_", " ")
