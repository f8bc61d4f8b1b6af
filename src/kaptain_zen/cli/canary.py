"""`kaptain-zen canary set|promote|rollback` and `kaptain-zen undeploy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kaptain_zen.cli.options import (
    Home,
    ModelId,
    StorageUri,
    choose_platform,
    kaptain_components,
)

if TYPE_CHECKING:
    from kaptain_zen.model.models import Model

canary = typer.Typer(help="A second revision beside the one that serves.", no_args_is_help=True)


@canary.command("set")
def set_canary(
    model_id: ModelId,
    percentage: Annotated[int, typer.Argument(help="Share of the requests, 1 to 99.")],
    model_uri: Annotated[
        str | None,
        typer.Option(
            "--model-uri",
            help="Folder of a saved model; the model's newest artifact if not given.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until it must answer.")] = 300.0,
    home: Home = None,
    storage_uri: StorageUri = None,
) -> None:
    """Serve the newest artifact beside what serves, or change its share of the requests."""
    model = _load(model_id, home, storage_uri)
    model.deploy_canary(percentage, model_uri, timeout=timeout)
    typer.echo(_deployed(model))


@canary.command("promote")
def promote(model_id: ModelId, home: Home = None, storage_uri: StorageUri = None) -> None:
    """Give the canary all requests."""
    model = _load(model_id, home, storage_uri)
    model.promote_canary()
    typer.echo(_deployed(model))


@canary.command("rollback")
def roll_back(model_id: ModelId, home: Home = None, storage_uri: StorageUri = None) -> None:
    """Remove the canary and give the baseline all requests."""
    model = _load(model_id, home, storage_uri)
    model.rollback_canary()
    typer.echo(_deployed(model))


def undeploy(model_id: ModelId, home: Home = None, storage_uri: StorageUri = None) -> None:
    """Remove a model's service, canary and all; what was trained stays."""
    model = _load(model_id, home, storage_uri)
    model.undeploy()
    if not (home or storage_uri):
        for component in kaptain_components():
            if hasattr(component, "forget_service"):
                component.forget_service(model_id)
    typer.echo(f"{model_id} is undeployed.")


def _load(model_id: str, home: str | None, storage_uri: str | None) -> Model:
    from kaptain_zen.model.models import Model

    return Model.load(model_id, platform=choose_platform(home, storage_uri))


def _deployed(model: Model) -> str:
    status = model.status()
    if status.canary:
        return (
            f"{model.id}: canary {status.canary} gets {status.canary_percentage} % of the "
            f"requests, {status.baseline} the rest, at {status.url}"
        )
    return f"{model.id}: {status.baseline} gets all requests, at {status.url}"
