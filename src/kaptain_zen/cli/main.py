"""The `kaptain-zen` command.

Starting it loads neither ZenML nor anything else that is heavy: each command imports what it needs.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kaptain_zen import __version__
from kaptain_zen.cli.canary import canary, undeploy
from kaptain_zen.cli.cleanup import cleanup
from kaptain_zen.cli.models import models
from kaptain_zen.cli.registration import flavors, stacks

app = typer.Typer(
    name="kaptain-zen",
    help="Register flavors and stacks, look at models, steer canaries, clean up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(flavors, name="flavors")
app.add_typer(stacks, name="stack")
app.add_typer(models, name="models")
app.add_typer(canary, name="canary")
app.command("undeploy")(undeploy)
app.command("cleanup")(cleanup)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kaptain-zen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Describe a model once; train, tune, deploy and canary it from ZenML."""


def main() -> None:
    """Run the command; an error that this package raises on purpose is one message, no traceback.

    `KAPTAIN_SDK_DEBUG=true` shows the traceback too.
    """
    from kaptain_zen import envs
    from kaptain_zen.exceptions import KaptainError

    try:
        app()
    except KaptainError as error:
        if _debug(envs):
            raise
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _debug(envs: object) -> bool:
    from kaptain_zen.exceptions import ConfigurationError

    try:
        return bool(getattr(envs, "DEBUG", False))
    except ConfigurationError:
        # A wrong value of the switch must not hide the error that is to be shown.
        return False
