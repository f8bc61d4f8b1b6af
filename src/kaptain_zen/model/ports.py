"""The five things that a model needs of a platform, as small Protocols, and what they exchange.

Everything exchanged is plain immutable data; a handle or a status made by one process means the
same in another. Secrets are never part of it: an adapter gets them when it is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import AnyDomain
from kaptain_zen.model.base import Frozen
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.record import (
    Hyperparameters,
    Image,
    ModelRecord,
    Moment,
    RunHandle,
    Scalar,
    Trial,
)
from kaptain_zen.model.resources import Resources
from kaptain_zen.model.spec import ModelSpec


class RunState(Enum):
    """Where a run is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether it will not change any more."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class LogLine(Frozen):
    """One line that a worker printed.

    Attributes:
        source: Who printed it, for example `mnist-job-1f2e/worker-0`.
        text: The line, without its end.
    """

    source: str
    text: str


class RunRequest(Frozen):
    """What every run needs.

    Attributes:
        name: Its name; whoever submits the same name again gets the same run back.
        spec: The model.
        base_dir: Folder that the model's files are relative to.
        image: The training image, if the platform has images.
        args: Positional arguments of the script.
        kwargs: Keyword arguments of the script, handed over as `--key=value`.
        upload_uri: Folder in the storage that the model goes to (`TRAINED_MODEL_UPLOAD_PATH`).
        workers: Processes per training.
        resources: Of each worker.
        timeout: Seconds that the whole run may take; None for no limit.
        labels: Put on whatever the platform creates.
        annotation: The model's record as JSON, to be found again with the run.
    """

    name: str
    spec: ModelSpec
    base_dir: Path
    image: Image | None = None
    args: tuple[str, ...] = ()
    kwargs: dict[str, str] = Field(default_factory=dict)
    upload_uri: str
    workers: int = Field(default=2, ge=1)
    resources: Resources = Resources()
    timeout: float | None = Field(default=None, gt=0)
    labels: dict[str, str] = Field(default_factory=dict)
    annotation: str = ""


class TrainRequest(RunRequest):
    """One training.

    Attributes:
        hyperparameters: Handed to the script as `--name value`.
    """

    hyperparameters: Hyperparameters = Field(default_factory=dict)


class TuneRequest(RunRequest):
    """One search.

    Attributes:
        hyperparameters: The domain of each hyperparameter.
        objectives: Metrics to look at; the main one first.
        objective_type: Whether the main one is to be large or small.
        objective_goal: Value of the main one at which the search may stop.
        algorithm: How it searches.
        algorithm_settings: The algorithm's own settings.
        trials: How many at most.
        parallel_trials: How many at a time.
        failed_trials: The search fails when this many trials have failed.
        trials_uri: Folder in the storage for the trials' models; `upload_uri` gets the best one.
    """

    hyperparameters: dict[str, AnyDomain] = Field(min_length=1)
    objectives: tuple[str, ...] = Field(min_length=1)
    objective_type: Literal["maximize", "minimize"] = "maximize"
    objective_goal: float | None = None
    algorithm: Algorithm = Algorithm.RANDOM
    algorithm_settings: dict[str, Scalar] = Field(default_factory=dict)
    trials: int = Field(default=16, ge=1)
    parallel_trials: int = Field(default=2, ge=1)
    failed_trials: int = Field(default=4, ge=1)
    trials_uri: str


class RunStatus(Frozen):
    """What is known of a run.

    Attributes:
        handle: Which.
        state: Where it is in its life.
        reason: Why it failed, or why it has not started, in a sentence that says what to do.
        metrics: What it reported so far.
        exit_codes: Of its workers, by name, as far as they ended.
        submitted_at: When.
        started_at: When its first worker started.
        ended_at: When it ended.
        annotation: As it was in the request.
    """

    handle: RunHandle
    state: RunState
    reason: str = ""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    exit_codes: dict[str, int] = Field(default_factory=dict)
    submitted_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    annotation: str = ""


class TuneStatus(RunStatus):
    """What is known of a search.

    Attributes:
        trials: Those that ended, in the order in which they were asked for.
        best: Name of the best of them.
        hyperparameters: What the best one used.
        total: How many there will be at most.
        running: How many run.
        pending: How many wait to run.
        goal_reached: Whether it ended because the goal was reached.
    """

    trials: tuple[Trial, ...] = ()
    best: str | None = None
    hyperparameters: Hyperparameters = Field(default_factory=dict)
    total: int = 0
    running: int = 0
    pending: int = 0
    goal_reached: bool = False

    def count(self, state: str) -> int:
        """How many trials ended in a state (`succeeded`, `failed`, `killed`, `pruned`)."""
        return sum(trial.state == state for trial in self.trials)


class Service(Frozen):
    """A deployed model as its platform sees it.

    Attributes:
        model_id: Of the model.
        name: Of the service, and of the model in prediction requests.
        backend: The adapter that serves it.
        url: Base URL, stable as long as the service exists.
        record: The record in the service's annotation: the truth about what is deployed.
        resource_version: Changes whenever the service does; hand it back to change the service.
        ready: Whether everything that it should serve answers.
        stopped: Whether it was stopped on purpose.
        message: Why it is not ready.
        requests: Requests answered so far, by revision, where the platform counts them.
    """

    model_id: str
    name: str
    backend: str
    url: str
    record: ModelRecord
    resource_version: str
    ready: bool
    stopped: bool = False
    message: str = ""
    requests: dict[str, int] = Field(default_factory=dict)

    @property
    def prediction_url(self) -> str:
        """Where predictions are asked for (Open Inference Protocol, version 2)."""
        return f"{self.url}/v2/models/{self.name}/infer"


class ServiceProgress(Frozen):
    """One row of the table that is shown while a service gets ready.

    Attributes:
        name: Of the service.
        ready: `True`, `False` or `Unknown`.
        prev: Percentage of requests for the revision that served before; blank if there is none.
        latest: Percentage of requests for the newest revision; blank if not known yet.
        url: Once it is known.
    """

    name: str
    ready: Literal["True", "False", "Unknown"]
    prev: str = ""
    latest: str = ""
    url: str = ""


class ObjectInfo(Frozen):
    """An object of the storage.

    Attributes:
        uri: Full URI.
        size: Bytes.
        modified: When it was written last.
    """

    uri: str
    size: int
    modified: Moment


class Builder(Protocol):
    """Makes training images."""

    def build(self, spec: ModelSpec, *, base_dir: Path, verbose: bool = False) -> Image:
        """Make the image, or find that the same content was published under its name already.

        Raises:
            ModelValidationException: A file is missing.
            ImageBuildException: The build failed.
        """
        ...


class Trainer(Protocol):
    """Runs trainings."""

    backend: str

    def submit(self, request: TrainRequest) -> RunHandle:
        """Start a run and return at once; the run does not need this process any more.

        Raises:
            ModelValidationException: The request is wrong; nothing was started.
            WorkloadDeploymentError: It cannot be started.
        """
        ...

    def status(self, handle: RunHandle) -> RunStatus:
        """Look at a run.

        Raises:
            RunNotFoundError: There is no such run.
        """
        ...

    def wait(
        self,
        handle: RunHandle,
        *,
        timeout: float | None = None,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> RunStatus:
        """Wait until a run ends; every line that it prints, from its first, goes to `on_log`.

        Raises:
            RunNotFoundError: There is no such run.
            WorkloadTimeoutError: It did not end within `timeout` seconds; it goes on.
        """
        ...

    def cancel(self, handle: RunHandle) -> None:
        """Stop a run and all its processes; nothing happens when it has ended already.

        Raises:
            RunNotFoundError: There is no such run.
        """
        ...

    def delete(self, handle: RunHandle) -> None:
        """Cancel a run and remove what is left of it; nothing happens when there is nothing."""
        ...


class Tuner(Protocol):
    """Runs searches; the methods mean what they mean for a `Trainer`."""

    backend: str

    def check(self, request: TuneRequest) -> None:
        """Say whether this platform can run the search.

        Raises:
            ModelValidationException: A setting is wrong.
            UnsupportedAlgorithmException: The algorithm is not available here.
        """
        ...

    def submit(self, request: TuneRequest) -> RunHandle:
        """Start a search."""
        ...

    def status(self, handle: RunHandle) -> TuneStatus:
        """Look at a search."""
        ...

    def wait(
        self,
        handle: RunHandle,
        *,
        timeout: float | None = None,
        on_progress: Callable[[TuneStatus], None] | None = None,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> TuneStatus:
        """Wait until a search ends; `on_progress` gets the status at every change.

        When it succeeds, the best trial's model is under the request's `upload_uri` and nothing is
        left under its `trials_uri`.
        """
        ...

    def cancel(self, handle: RunHandle) -> None:
        """Stop a search and all its trials."""
        ...

    def delete(self, handle: RunHandle) -> None:
        """Cancel a search and remove what is left of it and of its trials."""
        ...


class Server(Protocol):
    """Serves models: one service per model id, with at most two revisions behind it."""

    backend: str

    def check(self, record: ModelRecord) -> None:
        """Say whether this platform can serve what the record's deployment asks for.

        Raises:
            UnsupportedModelDeploymentException: No server for the framework.
            ModelValidationException: A setting is wrong.
        """
        ...

    def get(self, model_id: str) -> Service | None:
        """Look at a model's service.

        Raises:
            RecordFormatError: There is one, and its annotation cannot be read.
        """
        ...

    def list(self) -> list[Service]:
        """All services of this platform that can be read."""
        ...

    def apply(
        self,
        record: ModelRecord,
        *,
        resource_version: str | None,
        timeout: float = 300,
        on_progress: Callable[[ServiceProgress], None] | None = None,
    ) -> Service:
        """Make the service what the record's deployment says, without dropping a request.

        Revisions that already serve are not restarted. When a new one does not get ready, the
        service is left, or put back, as it was.

        Args:
            record: The record to put into the service's annotation.
            resource_version: What the service had when the record was derived from it; None if
                there was no service.
            timeout: Seconds for everything to get ready.
            on_progress: Gets a row at every change.

        Returns:
            The service, ready.

        Raises:
            ConflictError: The service changed, or appeared, or is gone.
            WorkloadDeploymentError: A revision did not start; the reason is in the message.
            WorkloadTimeoutError: It did not get ready in time.
        """
        ...

    def delete(
        self, model_id: str, *, resource_version: str | None = None, timeout: float = 60
    ) -> None:
        """Remove a service and all of its processes once their requests are answered.

        Raises:
            ConflictError: The service changed.
        """
        ...

    def stop(self, model_id: str, *, timeout: float = 60) -> Service:
        """Keep the service with its URL, but run nothing behind it."""
        ...

    def start(self, model_id: str, *, timeout: float = 300) -> Service:
        """Run a stopped service again, as it was."""
        ...

    def logs(
        self, model_id: str, *, tail: int | None = None, follow: bool = False
    ) -> Iterator[LogLine]:
        """What the servers printed, baseline and canary told apart by `source`."""
        ...


class Store(Protocol):
    """Objects under URIs. Folders are prefixes; a URI of a folder has no slash at its end.

    Raises:
        ConfigurationError: From every method, for a URI of a scheme that is not supported.
        StorageError: From every method, when the storage cannot be reached or refuses.
    """

    base_uri: str

    def check(self) -> None:
        """Prove within seconds that objects can be written below `base_uri`; leave nothing."""
        ...

    def read(self, uri: str) -> tuple[bytes, str]:
        """Read one object.

        Returns:
            Its bytes and its version, for `write`.

        Raises:
            ObjectNotFoundError: There is none.
        """
        ...

    def write(self, uri: str, data: bytes, *, version: str | None = None, new: bool = False) -> str:
        """Write one object in one step: a reader sees the old one or the new one.

        Args:
            uri: Where.
            data: What.
            version: Only if the object still has this version.
            new: Only if there is no such object.

        Returns:
            The new version.

        Raises:
            PreconditionFailedError: Somebody else wrote it.
        """
        ...

    def list(self, uri: str) -> list[ObjectInfo]:
        """All objects below a folder, in the order of their URIs."""
        ...

    def upload(self, folder: Path, uri: str) -> None:
        """Copy a local folder's files to a folder of the storage."""
        ...

    def download(self, uri: str, folder: Path) -> None:
        """Copy all objects below a folder to a local one.

        Raises:
            ObjectNotFoundError: There are none.
        """
        ...

    def copy(self, source: str, target: str, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy all objects below a folder to another one, without moving them through here.

        Raises:
            ObjectNotFoundError: There are none.
        """
        ...

    def delete(self, uri: str) -> int:
        """Remove all objects below a folder, and the folder.

        Returns:
            How many there were.
        """
        ...

    def fingerprint(self, uri: str, *, exclude: tuple[str, ...] = ()) -> tuple[int, str]:
        """Size in bytes and SHA-256 over names and contents of all objects below a folder.

        Raises:
            ObjectNotFoundError: There are none.
        """
        ...
