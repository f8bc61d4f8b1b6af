"""`kaptain-zen models list|show|history`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from kaptain_zen.cli.options import Home, ModelId, Output, OutputFormat, StorageUri, choose_platform

if TYPE_CHECKING:
    from kaptain_zen.model.models import Model

models = typer.Typer(help="Models and their history.", no_args_is_help=True)
_SHORT = 8


@models.command("list")
def list_models(
    output: Output = OutputFormat.TABLE,
    home: Home = None,
    storage_uri: StorageUri = None,
) -> None:
    """List all models that the platform knows, deployed or stored."""
    from kaptain_zen.exceptions import KaptainError
    from kaptain_zen.model.models import Model
    from kaptain_zen.model.repository import RecordRepository

    platform = choose_platform(home, storage_uri)
    ids = {*RecordRepository(platform.store).ids(), *(s.model_id for s in platform.server.list())}
    rows = []
    for model_id in sorted(ids):
        try:
            rows.append(_summary(Model.load(model_id, platform=platform)))
        except KaptainError as error:
            # One record that cannot be read must not hide the others.
            rows.append({"id": model_id, "error": str(error)})
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo(f"No models at {platform.store.base_uri}.")
    else:
        _table(
            ["ID", "STATE", "REVISION", "METRICS", "DEPLOYMENT", "READY", "URL"],
            [_cells(row) for row in rows],
        )


@models.command("show")
def show_model(
    model_id: ModelId,
    output: Output = OutputFormat.TABLE,
    home: Home = None,
    storage_uri: StorageUri = None,
) -> None:
    """Show what is known of a model."""
    from kaptain_zen.model.models import Model

    model = Model.load(model_id, platform=choose_platform(home, storage_uri))
    status = model.status()
    if output is OutputFormat.JSON:
        record = json.loads(model.record.to_json())
        typer.echo(
            json.dumps({"record": record, "status": status.model_dump(mode="json")}, indent=2)
        )
        return
    spec, record_ = model.spec, model.record
    rows = {
        "Id": spec.id,
        "Name": spec.name,
        "Description": spec.description,
        "Version": spec.version,
        "Framework": f"{spec.framework.value} {spec.framework_version}",
        "State": record_.state.value,
        "Revision": record_.revision,
        "Artifact": record_.artifact.uri if record_.artifact else "none",
        "Hyperparameters": _pairs(record_.hyperparameters or {}),
        "Metrics": _pairs({name: m.latest for name, m in record_.metrics.items()}),
        "Deployment": status.phase.value,
        "Baseline": status.baseline or "none",
        "Canary": f"{status.canary} at {status.canary_percentage} %" if status.canary else "none",
        "Ready": _ready(status.model_dump(mode="json")),
        "URL": status.url or "none",
        "Requests": _pairs(status.requests),
        "Under way": status.pending or "nothing",
    }
    _table(["PROPERTY", "VALUE"], [[name, value] for name, value in rows.items()])


@models.command("history")
def show_history(
    model_id: ModelId,
    output: Output = OutputFormat.TABLE,
    home: Home = None,
    storage_uri: StorageUri = None,
) -> None:
    """Show what was done to a model, oldest first."""
    from kaptain_zen.model.models import Model

    model = Model.load(model_id, platform=choose_platform(home, storage_uri))
    entries = [entry.model_dump(mode="json") for entry in model.history]
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(entries, indent=2))
    elif not entries:
        typer.echo(f"Nothing was done to {model_id} yet.")
    else:
        _table(
            ["AT", "ACTION", "REVISION", "STATE", "DEPLOYMENT", "DETAIL"],
            [
                [
                    entry["at"][:19].replace("T", " "),
                    entry["action"],
                    entry["revision"][:_SHORT],
                    entry["state"],
                    entry["phase"],
                    _pairs(entry["detail"]),
                ]
                for entry in entries
            ],
        )


def _summary(model: Model) -> dict[str, Any]:
    status = model.status()
    return {
        "id": model.id,
        "state": status.state.value,
        "revision": status.revision,
        "metrics": {name: metric.latest for name, metric in model.metrics.items()},
        "phase": status.phase.value,
        "canary_percentage": status.canary_percentage,
        "ready": status.ready,
        "message": status.message,
        "url": status.url,
        "pending": status.pending,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["id"], "unreadable", "", "", "", "", row["error"]]
    canary = f" {row['canary_percentage']} %" if row["canary_percentage"] else ""
    return [
        row["id"],
        f"{row['state']}{' …' if row['pending'] else ''}",
        row["revision"][:_SHORT],
        _pairs(row["metrics"]),
        f"{row['phase']}{canary}",
        _ready(row),
        row["url"] or "",
    ]


def _ready(row: dict[str, Any]) -> str:
    if row["phase"] == "none":
        return ""
    return "yes" if row["ready"] else f"no: {row['message']}" if row["message"] else "no"


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


def _table(header: list[str], rows: list[list[str]]) -> None:
    """Print columns; nothing is cut where the output is not a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    if console.is_terminal:
        console.print(table)
    else:
        Console(width=10_000).print(table, soft_wrap=True)
