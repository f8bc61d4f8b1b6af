"""The part of a model that builds, trains and tunes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from kaptain_zen import console, envs
from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import Domain
from kaptain_zen.model import arguments, running, states
from kaptain_zen.model.core import ModelBase, checked
from kaptain_zen.model.names import label_value, slug, suffixed
from kaptain_zen.model.ports import TrainRequest, TuneRequest, TuneStatus
from kaptain_zen.model.record import RunHandle, Scalar
from kaptain_zen.model.repository import RecordRepository
from kaptain_zen.model.resources import Resources

_log = logging.getLogger("kaptain_zen")


class TrainableModel(ModelBase):
    """Builds, trains and tunes."""

    _tuning: TuneStatus | None = None

    @property
    def tuning(self) -> TuneStatus | None:
        """How the last search of this object ended."""
        return self._tuning

    def build(self, verbose: bool | None = None) -> None:
        """Build the training image, unless the same content was built under its name before.

        Args:
            verbose: Whether to print the build's log; `KAPTAIN_SDK_VERBOSE` if None.

        Raises:
            ModelValidationException: A file of the model is missing.
            ImageBuildException: The build failed.
        """
        console.configure_logging()
        platform = self.platform
        image = platform.builder.build(
            self.spec,
            base_dir=self._base_dir(),
            verbose=either(verbose, envs.VERBOSE),
        )
        self._record = states.built(self._record, image)

    def train(
        self,
        *args: str,
        hyperparameters: Mapping[str, Scalar],
        gpus: int | None = None,
        cpu: str | float | None = None,
        memory: str | None = None,
        resources: Resources | None = None,
        workers: int = 2,
        verbose: bool | None = None,
        timeout: float | None = None,
        force_cleanup: bool | None = None,
        on_submit: Callable[[RunHandle], None] | None = None,
        **kwargs: str,
    ) -> bool:
        """Train the model, with several workers where its framework is distributed.

        Args:
            *args: Positional arguments of the script.
            hyperparameters: Values, handed to the script as `--name value`.
            gpus: GPUs per worker.
            cpu: Cores per worker, as request and limit.
            memory: Memory per worker, as request and limit.
            resources: Requests and limits apart; not together with the three before.
            workers: Parallel workers.
            verbose: Whether to print what they print; `KAPTAIN_SDK_VERBOSE` if None.
            timeout: Seconds that it may take; a week if None.
            force_cleanup: Whether to remove the ended run; `KAPTAIN_SDK_FORCE_CLEANUP` if None.
            on_submit: Called with the run's handle as soon as there is one.
            **kwargs: Keyword arguments of the script, handed over as `--key=value`.

        Returns:
            Whether there is a new model; `last_error` says why not.

        Raises:
            ModelValidationException: The request is wrong; nothing was touched.
            StorageError: The storage cannot be used; nothing was touched.
            WorkloadDeploymentError: The training cannot be started.
        """
        console.configure_logging()
        values = arguments.checked_hyperparameters(hyperparameters)
        common, revision = self._prepare(
            "train",
            args,
            kwargs,
            workers,
            timeout,
            Resources.choose(resources, cpu=cpu, memory=memory, gpus=gpus),
        )
        request = checked(TrainRequest, {**common, "hyperparameters": values})
        self._build_first(request, verbose)
        request = request.model_copy(update={"image": self._record.image})
        return self._take(
            running.run(
                self.platform,
                self._record,
                "train",
                request,
                revision=revision,
                verbose=either(verbose, envs.VERBOSE),
                on_submit=on_submit,
                keep=not either(force_cleanup, envs.FORCE_CLEANUP),
            )
        )

    def tune(
        self,
        *args: str,
        hyperparameters: Mapping[str, Domain],
        objectives: list[str],
        objective_goal: float | None = None,
        objective_type: str = "maximize",
        workers: int = 2,
        gpus: int | None = None,
        cpu: str | float | None = None,
        memory: str | None = None,
        resources: Resources | None = None,
        trials: int = 16,
        parallel_trials: int = 2,
        failed_trials: int = 4,
        algorithm: str | Algorithm | None = Algorithm.RANDOM.value,
        algorithm_setting: Mapping[str, Scalar] | None = None,
        verbose: bool | None = None,
        timeout: float | None = None,
        delete_experiment: bool | None = None,
        on_submit: Callable[[RunHandle], None] | None = None,
        **kwargs: str,
    ) -> bool:
        """Search for the hyperparameters with the best main objective.

        Args:
            *args: Positional arguments of the script.
            hyperparameters: The domain of each.
            objectives: Metrics to look at, the main one first.
            objective_goal: Value of the main one at which the search may stop.
            objective_type: `maximize` or `minimize`.
            workers: Parallel workers of each trial.
            gpus: GPUs per worker.
            cpu: Cores per worker, as request and limit.
            memory: Memory per worker, as request and limit.
            resources: Requests and limits apart; not together with the three before.
            trials: How many at most.
            parallel_trials: How many at a time.
            failed_trials: The search fails when this many trials have failed.
            algorithm: How it searches; see `Algorithm`.
            algorithm_setting: The algorithm's own settings.
            verbose: Whether to print what the trials print; `KAPTAIN_SDK_VERBOSE` if None.
            timeout: Seconds that the search may take; a week if None.
            delete_experiment: Whether to remove the ended search; `KAPTAIN_SDK_FORCE_CLEANUP` if
                None.
            on_submit: Called with the search's handle as soon as there is one.
            **kwargs: Keyword arguments of the script, handed over as `--key=value`.

        Returns:
            Whether there is a new model; `last_error` says why not.

        Raises:
            ModelValidationException: The request is wrong; nothing was touched.
            UnsupportedAlgorithmException: The platform has no such algorithm.
            StorageError: The storage cannot be used; nothing was touched.
        """
        console.configure_logging()
        domains = arguments.checked_domains(hyperparameters)
        wanted = {
            "hyperparameters": domains,
            "objectives": arguments.checked_objectives(objectives),
            "objective_goal": objective_goal,
            "objective_type": objective_type,
            "algorithm": Algorithm.of(algorithm) or Algorithm.RANDOM,
            "algorithm_settings": dict(algorithm_setting or {}),
            "trials": trials,
            "parallel_trials": parallel_trials,
            "failed_trials": failed_trials,
        }
        common, revision = self._prepare(
            "tune",
            args,
            kwargs,
            workers,
            timeout,
            Resources.choose(resources, cpu=cpu, memory=memory, gpus=gpus),
        )
        folder = RecordRepository(self.platform.store).folder(self.id)
        request = checked(
            TuneRequest,
            {**common, **wanted, "trials_uri": f"{folder}/trials/{common['name']}"},
        )
        self.platform.tuner.check(request)
        self._build_first(request, verbose)
        request = request.model_copy(update={"image": self._record.image})
        return self._take(
            running.run(
                self.platform,
                self._record,
                "tune",
                request,
                revision=revision,
                verbose=either(verbose, envs.VERBOSE),
                on_submit=on_submit,
                keep=not either(delete_experiment, envs.FORCE_CLEANUP),
            )
        )

    def _base_dir(self) -> Path:
        return Path(self.platform.config.base_dir)

    def _prepare(
        self,
        action: str,
        args: tuple[str, ...],
        kwargs: Mapping[str, str],
        workers: int,
        timeout: float | None,
        resources: Resources,
    ) -> tuple[dict[str, Any], str]:
        """What a training and a tuning have in common; the storage is proven usable."""
        platform, revision = self.platform, uuid4().hex
        platform.store.check()
        folder = RecordRepository(platform.store).folder(self.id)
        kind, place = {"train": ("job", "trained"), "tune": ("tune", "tuned")}[action]
        name = suffixed(slug(self.id), f"{kind}-{revision[:8]}", max_length=40)
        common = {
            "name": name,
            "spec": self.spec,
            "base_dir": self._base_dir(),
            "args": tuple(str(arg) for arg in args),
            "kwargs": arguments.texts(kwargs),
            "upload_uri": f"{folder}/{place}/{revision}",
            "workers": workers,
            "resources": resources,
            "timeout": running.DEFAULT_TIMEOUT if timeout is None else timeout,
            "labels": {
                "app.kubernetes.io/managed-by": "kaptain-zen",
                "app.kubernetes.io/component": action,
                "kaptain-zen.io/model-id": label_value(self.id),
                "kaptain-zen.io/revision": revision,
            },
        }
        return common, revision

    def _build_first(self, request: TrainRequest | TuneRequest, verbose: bool | None) -> None:
        self.build(verbose)
        _log.debug("Run %s uses image %s.", request.name, self._record.image)

    def _take(self, outcome: running.RunOutcome) -> bool:
        self._record, self._last_error = outcome.record, outcome.error
        if isinstance(outcome.status, TuneStatus):
            self._tuning = outcome.status
        return outcome.error is None


def either(value: bool | None, default: bool) -> bool:
    """A switch that a call may set, or leave to the environment with None."""
    return default if value is None else value
