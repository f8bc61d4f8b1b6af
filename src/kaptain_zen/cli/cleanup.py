"""`kaptain-zen cleanup`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kaptain_zen.cli.options import Home, StorageUri, choose_home, choose_platform

if TYPE_CHECKING:
    from kaptain_zen.platform.local.server import LocalServer


def cleanup(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", help="Only runs that ended so long ago, for example 30m, 12h, 7d."
        ),
    ] = "0s",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    home: Home = None,
    storage_uri: StorageUri = None,
) -> None:
    """Remove runs that have ended, and what clients that were killed have left behind.

    What is deployed stays, and so do artifacts, records, and runs whose result no model has taken
    over yet. In the storage, only what nothing refers to goes, once it is an hour old. Everything
    is listed before it is removed.
    """
    from kaptain_zen.cli.leftovers import find_leftovers, parse_age
    from kaptain_zen.exceptions import KaptainError

    age = parse_age(older_than)
    platform = choose_platform(home, storage_uri)
    server: LocalServer = platform.server  # type: ignore[assignment]
    leftovers = find_leftovers(
        platform, choose_home(home, storage_uri), older_than=age, now=datetime.now(UTC)
    )
    broken = server.cleanup(dry_run=True)
    for leftover in leftovers:
        if leftover.remove is None:
            typer.echo(f"keep    {leftover.what}: {leftover.reason}")
    removable = [leftover for leftover in leftovers if leftover.remove]
    for what in [*(leftover.what for leftover in removable), *broken]:
        typer.echo(f"remove  {what}")
    if not removable and not broken:
        typer.echo("There is nothing to remove.")
        return
    if dry_run:
        typer.echo("Nothing was removed: --dry-run.")
        return
    removed, failures = 0, []
    for leftover in removable:
        try:
            if leftover.remove:
                leftover.remove()
            removed += 1
        except KaptainError as error:
            failures.append(f"{leftover.what} was not removed: {error}")
    removed += len(server.cleanup(dry_run=False))
    typer.echo(f"{removed} removed.")
    if failures:
        raise KaptainError("\n".join(failures))
