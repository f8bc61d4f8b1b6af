"""What the local platform no longer needs, and what it must keep: decided before anything goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from kaptain_zen.exceptions import ConfigurationError, KaptainError
from kaptain_zen.model.leftovers import storage_leftovers
from kaptain_zen.model.record import ModelRecord, RunHandle
from kaptain_zen.model.repository import RecordRepository

if TYPE_CHECKING:
    from kaptain_zen.model.ports import RunStatus
    from kaptain_zen.platform.local.home import LocalHome
    from kaptain_zen.platform.local.trainer import LocalTrainer
    from kaptain_zen.platform.platform import Platform

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_STEP = re.compile(r"step-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Name of a step operator's run."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Leftover:
    """What may be needed no longer: a run that has ended, a folder that nothing refers to.

    Attributes:
        what: What it is, for people.
        remove: What removes it; None when it must stay.
        reason: Why it must stay.
    """

    what: str
    remove: Callable[[], None] | None = None
    reason: str = ""


def parse_age(text: str) -> timedelta:
    """Read an age such as `90s`, `30m`, `12h`, `7d`, `2w`.

    Raises:
        ConfigurationError: It is none.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigurationError(
            f"{text!r} is no age. Write a number and s, m, h, d or w, for example 12h or 7d."
        )
    try:
        return timedelta(**{_UNITS[match.group(2)]: float(match.group(1))})
    except OverflowError:
        raise ConfigurationError(f"{text!r} is longer than any run has been here.") from None


def find_leftovers(
    platform: Platform, home: LocalHome, *, older_than: timedelta, now: datetime
) -> list[Leftover]:
    """Runs of a local platform that have ended, and what nothing in its storage refers to.

    Args:
        platform: The platform.
        home: Its folder.
        older_than: How long ago they must have ended, or been written.
        now: The time.

    Returns:
        What may go, and what must stay with the reason.
    """
    trainer: LocalTrainer = platform.trainer  # type: ignore[assignment]
    searches = {
        path.parent.name: platform.tuner.status(_search(home, path.parent.name))
        for path in sorted(home.runs.glob("[!.]*/search.json"))
    }
    found = [
        _leftover(platform, "search", status, older_than, now, platform.tuner.delete)
        for status in searches.values()
    ]
    trials = re.compile(
        "|".join(f"{re.escape(name)}-\\d+" for name in searches) if searches else r"(?!)"
    )
    for status in trainer.runs():
        # The trials of a search go and stay with it.
        if not trials.fullmatch(status.handle.name):
            kind = "step" if _STEP.fullmatch(status.handle.name) else "training"
            found.append(_leftover(platform, kind, status, older_than, now, trainer.delete))
    found += [
        Leftover(f"{uri}, which nothing refers to", remove=partial(_delete, platform, uri))
        for uri in storage_leftovers(platform, older_than=older_than, now=now)
    ]
    return [leftover for leftover in found if leftover is not None]


def _delete(platform: Platform, uri: str) -> None:
    platform.store.delete(uri)


def _leftover(
    platform: Platform,
    kind: str,
    status: RunStatus,
    older_than: timedelta,
    now: datetime,
    delete: Callable[[RunHandle], None],
) -> Leftover | None:
    name = status.handle.name
    if not status.state.finished:
        reason = status.reason or f"it is {status.state.value}"
        return Leftover(f"{kind} {name}", reason=reason)
    if status.ended_at is not None and now - status.ended_at < older_than:
        return None
    what = f"{kind} {name}, {status.state.value}"
    try:
        model_id = _waiting_model(platform, status)
    except KaptainError as error:
        # What cannot be read now may be readable later: with another release, or from elsewhere.
        return Leftover(what, reason=str(error))
    if model_id is not None:
        return Leftover(
            what,
            reason=f"model {model_id} has not taken over its result yet; "
            f"Model.attach({model_id!r}) does",
        )
    return Leftover(what, remove=lambda: delete(status.handle))


def _waiting_model(platform: Platform, status: RunStatus) -> str | None:
    """Id of the model that waits for a run's result, when its client died before it took it."""
    if not status.annotation:
        return None
    record = ModelRecord.from_json(status.annotation, where=f"run {status.handle.name}")
    stored = RecordRepository(platform.store).load(record.spec.id)
    waits = stored and stored.pending and stored.pending.handle.name == status.handle.name
    return record.spec.id if waits else None


def _search(home: LocalHome, name: str) -> RunHandle:
    return RunHandle(backend="local", kind="tune", namespace=str(home.root), name=name)
