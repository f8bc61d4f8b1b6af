"""`kaptain-zen flavors register` and `kaptain-zen stack register local`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kaptain_zen.components.registration import Registered

flavors = typer.Typer(help="ZenML flavors of this package.", no_args_is_help=True)
stacks = typer.Typer(help="ZenML stacks of these flavors.", no_args_is_help=True)
_register = typer.Typer(help="Register a stack, or bring it up to date.", no_args_is_help=True)
stacks.add_typer(_register, name="register")


@flavors.callback()
def _flavors() -> None:
    """ZenML flavors of this package."""


@flavors.command("register")
def register_all_flavors() -> None:
    """Register all flavors with ZenML, or bring their registrations up to date."""
    from kaptain_zen.components.registration import register_flavors

    _report(register_flavors())


@_register.callback()
def _stack_register() -> None:
    """Register a stack, or bring it up to date."""


@_register.command("local")
def register_local(
    name: Annotated[str, typer.Option("--name", help="Of the stack.")] = "kaptain_local",
    home: Annotated[
        str | None,
        typer.Option(
            "--home",
            help="Folder for runs and services; '' goes back to KAPTAIN_ZEN_HOME, else "
            "~/.kaptain-zen.",
            show_default=False,
        ),
    ] = None,
    storage_uri: Annotated[
        str | None,
        typer.Option(
            "--storage-uri",
            help="Folder in the storage for all models, s3://bucket/folder or file:///folder; '' "
            "goes back to a folder of the stack's artifact store.",
            show_default=False,
        ),
    ] = None,
    orchestrator: Annotated[
        str | None,
        typer.Option("--orchestrator", help="A registered one; `default` for a new stack."),
    ] = None,
    artifact_store: Annotated[
        str | None,
        typer.Option("--artifact-store", help="A registered one; `default` for a new stack."),
    ] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Make it the active stack.")] = False,
) -> None:
    """Register a stack of the local platform with its flavors and components.

    Run again, it changes what differs; what is not given stays as it is.
    """
    from kaptain_zen.components.registration import register_flavors, register_local_stack

    done = register_flavors() + register_local_stack(
        name,
        home=home,
        storage_uri=storage_uri,
        orchestrator=orchestrator,
        artifact_store=artifact_store,
        activate=activate,
    )
    _report(done)
    typer.echo("\nThe same with ZenML's own commands, in a new store:")
    for registered in done:
        typer.echo(f"  {registered.command}")


def _report(done: list[Registered]) -> None:
    for registered in done:
        typer.echo(f"{registered.what}: {registered.action}")
