"""Folders in the storage that nothing refers to any more: what killed clients have left there.

A client copies a model before it deploys it, and a training uploads before its client takes the
result over, so something that nothing refers to may be about to be referred to. Only what has not
changed for a while is therefore a leftover.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kaptain_zen.model.ports import ObjectInfo
from kaptain_zen.model.record import Deployment, ModelRecord
from kaptain_zen.model.repository import RecordRepository

if TYPE_CHECKING:
    from kaptain_zen.platform.platform import Platform

MIN_AGE = timedelta(hours=1)
"""Age from which something that nothing refers to is a leftover: longer than any deployment."""


def storage_leftovers(platform: Platform, *, older_than: timedelta, now: datetime) -> list[str]:
    """Find leftovers of all models.

    Args:
        platform: Where.
        older_than: For how long they must not have changed; an hour at least.
        now: The time.

    Returns:
        URIs of folders, for the store's `delete`.

    Raises:
        RecordFormatError: A record or an annotation cannot be read, so that nobody knows what it
            refers to.
        StorageError: The storage cannot be reached.
    """
    repository = RecordRepository(platform.store)
    found = []
    for model_id in repository.ids():
        record = repository.load(model_id)
        service = platform.server.get(model_id)
        if record is not None:
            folder = repository.folder(model_id)
            found += unreferenced(
                folder,
                platform.store.list(folder),
                record,
                service.record.deployment if service else Deployment(),
                before=now - max(older_than, MIN_AGE),
            )
    return found


def unreferenced(
    folder: str,
    objects: Iterable[ObjectInfo],
    record: ModelRecord,
    deployment: Deployment,
    *,
    before: datetime,
) -> list[str]:
    """Pick a model's folders that neither its record nor its service refers to.

    Args:
        folder: Of the model.
        objects: All below it.
        record: Of the model.
        deployment: What its service serves.
        before: Folders with anything newer than this stay.

    Returns:
        URIs of folders, sorted.
    """
    newest: dict[str, datetime] = {}
    for info in objects:
        kind, _, rest = info.uri[len(folder) + 1 :].partition("/")
        name, slash, _ = rest.partition("/")
        if kind in ("trained", "tuned", "deploy", "trials") and slash:
            place = f"{folder}/{kind}/{name}"
            newest[place] = max(newest.get(place, info.modified), info.modified)
    kept = set(_references(folder, record, deployment))
    return sorted(place for place, at in newest.items() if at < before and place not in kept)


def _references(folder: str, record: ModelRecord, deployment: Deployment) -> Iterable[str]:
    for served in (deployment.baseline, deployment.canary):
        if served is not None:
            yield served.uri
    for entry in record.history:
        # Every model that was ever trained or tuned is kept: one may want it back.
        if entry.action in ("train", "tune"):
            yield str(entry.detail.get("uri"))
    if record.pending is not None:
        yield record.pending.upload_uri
        yield f"{folder}/trials/{record.pending.handle.name}"
