"""What may go from the storage, and what must stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.models import PROPERTIES

from kaptain_zen.model import states
from kaptain_zen.model.leftovers import unreferenced
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.ports import ObjectInfo
from kaptain_zen.model.record import Artifact, ModelRecord, PendingRun, RunHandle
from kaptain_zen.model.spec import ModelSpec

FOLDER = "file:///models/dev/tiny"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
HANDLE = RunHandle(backend="local", kind="tune", namespace="", name="tiny-tune-1")


def revision(number: int) -> str:
    return f"{number:032x}"


def record() -> ModelRecord:
    new = states.new(ModelSpec(**PROPERTIES), revision=revision(0), now=LONG_AGO)
    trained = states.trained(
        new,
        artifact=Artifact(uri=f"{FOLDER}/trained/{revision(1)}", revision=revision(1)),
        hyperparameters={},
        metrics={"accuracy": Metric.first(1.0)},
        run=HANDLE,
        now=LONG_AGO,
    )
    return states.deployed(trained, revision=revision(2), now=LONG_AGO, bundles=f"{FOLDER}/deploy")


def left(known: ModelRecord, *paths: str, at: datetime = LONG_AGO) -> list[str]:
    objects = [ObjectInfo(uri=f"{FOLDER}/{path}", size=1, modified=at) for path in paths]
    found = unreferenced(FOLDER, objects, known, known.deployment, before=NOW - timedelta(hours=1))
    return [uri.removeprefix(f"{FOLDER}/") for uri in found]


def test_what_is_trained_or_served_stays():
    paths = [f"trained/{revision(1)}/m", f"deploy/{revision(2)}/m", "record.json"]
    assert left(record(), *paths) == []


def test_copies_and_uploads_that_nothing_refers_to_go():
    paths = [
        f"trained/{revision(7)}/m",
        f"tuned/{revision(8)}/deep/m",
        f"deploy/{revision(9)}/m",
        "trials/tiny-tune-0/tiny-tune-0-1/m",
    ]
    assert left(record(), *paths) == [
        f"deploy/{revision(9)}",
        f"trained/{revision(7)}",
        "trials/tiny-tune-0",
        f"tuned/{revision(8)}",
    ]


def test_what_was_written_just_now_may_be_on_its_way():
    assert left(record(), f"deploy/{revision(9)}/m", at=NOW - timedelta(minutes=59)) == []


def test_a_run_under_way_keeps_what_it_uploads():
    pending = PendingRun(
        action="tune",
        revision=revision(5),
        handle=HANDLE,
        upload_uri=f"{FOLDER}/tuned/{revision(5)}",
        objectives=("accuracy",),
        submitted_at=LONG_AGO,
    )
    known = states.submitted(record(), pending)
    assert left(known, f"tuned/{revision(5)}/m", "trials/tiny-tune-1/t/m") == []


def test_what_lies_outside_our_layout_is_nobodys_business():
    assert left(record(), "notes/readme.md", "trained", "tuned/file") == []
