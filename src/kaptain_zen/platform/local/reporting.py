"""What is known of a run, in the words of the port."""

from __future__ import annotations

import threading
from pathlib import Path

from kaptain_zen.model import metrics
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.ports import RunState, RunStatus
from kaptain_zen.model.record import RunHandle
from kaptain_zen.platform.local.follow import LogReader
from kaptain_zen.platform.local.runs import Plan, Progress, RunFolder, worker_name

_REMEMBERED = 256


class Reporter:
    """Makes statuses; remembers how far it has read each log for metrics."""

    def __init__(self, home: Path, backend: str) -> None:
        """Prepare.

        Args:
            home: Namespace of the handles.
            backend: Backend of the handles.
        """
        self._home = home
        self._backend = backend
        self._seen: dict[str, tuple[LogReader, dict[str, Metric]]] = {}
        self._lock = threading.Lock()

    def handle(self, plan: Plan) -> RunHandle:
        """What any process can find a run with."""
        return RunHandle(
            backend=self._backend,
            kind=plan.kind,
            namespace=str(self._home),
            name=plan.name,
            uid=plan.uid,
        )

    def status(self, folder: RunFolder, plan: Plan, progress: Progress | None) -> RunStatus:
        """What is known of a run.

        Args:
            folder: Its folder.
            plan: Its plan.
            progress: How far it is; None if it waits to be started.
        """
        return RunStatus.model_validate(
            {
                "handle": self.handle(plan),
                "state": RunState.PENDING if progress is None else RunState(progress.state),
                "reason": progress.reason if progress else "It waits to be started.",
                "metrics": self._metrics(folder, plan),
                "exit_codes": progress.exit_codes if progress else {},
                "submitted_at": plan.submitted_at,
                "started_at": progress.started_at if progress else None,
                "ended_at": progress.ended_at if progress else None,
                "annotation": plan.annotation,
            }
        )

    def forget(self, plan: Plan) -> None:
        """A run was deleted."""
        with self._lock:
            self._seen.pop(plan.uid, None)

    def _metrics(self, folder: RunFolder, plan: Plan) -> dict[str, Metric]:
        """What the first worker reported so far."""
        with self._lock:
            reader, values = self._seen.pop(plan.uid, (LogReader(folder), {}))
            for source, text in reader.lines():
                if source == worker_name(0) and "=" in text:
                    values = metrics.observe(values, metrics.parse_line(text))
            self._seen[plan.uid] = (reader, values)
            while len(self._seen) > _REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return values
