"""The part of a model that is deployed, canaried and asked for predictions."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from kaptain_zen import console
from kaptain_zen.exceptions import (
    ModelDeploymentException,
    ModelValidationException,
    WorkloadDeploymentError,
)
from kaptain_zen.model import deploying, presentation, states
from kaptain_zen.model.core import ModelBase
from kaptain_zen.model.ports import Service
from kaptain_zen.model.presentation import ModelStatus
from kaptain_zen.model.record import ModelRecord
from kaptain_zen.model.resources import Resources

_log = logging.getLogger("kaptain_zen")


class DeployableModel(ModelBase):
    """Is deployed, canaried and asked for predictions."""

    def service(self) -> Service | None:
        """The service as it is now; None when nothing is deployed."""
        return self.platform.server.get(self.id)

    def status(self) -> ModelStatus:
        """What is trained, what is deployed and whether it answers, as it is now."""
        self._record, service = deploying.observe(self.platform, self._record)
        return presentation.status(self._record, service)

    def deploy(
        self,
        model_uri: str | None = None,
        autoscale: int = 2,
        gpus: int | None = None,
        cpu: str | float | None = None,
        memory: str | None = None,
        resources: Resources | None = None,
        replace: bool = False,
        timeout: float = deploying.DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> bool:
        """Serve the newest artifact, or what is under a URI.

        Args:
            model_uri: Folder of a saved model.
            autoscale: Target of requests under way per replica.
            gpus: GPUs per replica.
            cpu: Cores per replica, as request and limit.
            memory: Memory per replica, as request and limit.
            resources: Requests and limits apart; not together with the three before.
            replace: Whether what is deployed may be replaced; no request is dropped.
            timeout: Seconds until it must answer.
            **kwargs: Serving configuration of this deployment, over that of the model.

        Returns:
            Whether it answers; `last_error` says why not, and what served before still does.

        Raises:
            ModelValidationException: The model is untrained, or the request is wrong.
            ModelDeploymentException: It is deployed and `replace` is not set.
            UnsupportedModelDeploymentException: The platform cannot serve it.
        """
        console.configure_logging()
        chosen = Resources.choose(resources, cpu=cpu, memory=memory, gpus=gpus)
        folder = deploying.bundles(self.platform, self.id)

        def transition(record: ModelRecord, revision: str, now: datetime) -> ModelRecord:
            return states.deployed(
                record,
                revision=revision,
                now=now,
                uri=model_uri,
                bundles=folder,
                replace=replace,
                resources=chosen,
                autoscale=autoscale,
                serving_config={**record.spec.serving_config, **kwargs},
            )

        try:
            service = self._change(transition, _checked_timeout(timeout))
        except WorkloadDeploymentError as error:
            self._last_error = str(error)
            _log.error("%s", error)
            return False
        self._last_error = None
        if service:
            _log.info("Model %s is deployed: %s", self.id, service.prediction_url)
        return True

    def deploy_canary(
        self,
        canary_traffic_percentage: int,
        model_uri: str | None = None,
        timeout: float = deploying.DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        """Serve a second revision beside the baseline, or change its share of the requests.

        Args:
            canary_traffic_percentage: Share for the canary, 1 to 99.
            model_uri: Folder of a saved model; the newest artifact if None.
            timeout: Seconds until it must answer.
            **kwargs: Serving configuration of the canary, over that of the model.

        Raises:
            ModelValidationException: The percentage is out of range, or there is nothing to serve.
            ModelDeploymentException: Nothing is deployed, or the canary did not start; the
                baseline serves on.
        """
        console.configure_logging()
        folder = deploying.bundles(self.platform, self.id)

        def transition(record: ModelRecord, revision: str, now: datetime) -> ModelRecord:
            return states.canaried(
                record,
                percentage=canary_traffic_percentage,
                revision=revision,
                now=now,
                uri=model_uri,
                bundles=folder,
                serving_config={**record.spec.serving_config, **kwargs},
            )

        self._change_or_raise(transition, _checked_timeout(timeout))
        _log.info("The canary of %s gets %s %%.", self.id, canary_traffic_percentage)

    def promote_canary(self) -> None:
        """Give the canary all requests; nothing is restarted.

        Raises:
            ModelDeploymentException: There is no canary.
        """
        console.configure_logging()
        self._change_or_raise(
            lambda r, revision, now: states.promoted(r, revision=revision, now=now)
        )
        _log.info("The canary of %s is promoted.", self.id)

    def rollback_canary(self) -> None:
        """Remove the canary and give the baseline all requests; nothing is restarted.

        Raises:
            ModelDeploymentException: There is no canary.
        """
        console.configure_logging()
        self._change_or_raise(
            lambda r, revision, now: states.rolled_back(r, revision=revision, now=now)
        )
        _log.info("The canary of %s is rolled back.", self.id)

    def undeploy(self) -> None:
        """Remove the service, canary and all; what was trained stays.

        Raises:
            ModelDeploymentException: Nothing is deployed.
        """
        console.configure_logging()
        self._change_or_raise(lambda r, _revision, now: states.undeployed(r, now=now))
        _log.info("Model %s is undeployed.", self.id)

    def predict(self, inputs: Any, *, timeout: float = 30.0) -> Any:
        """Ask the deployed model for predictions, over the Open Inference Protocol.

        Args:
            inputs: A numpy array, a pandas DataFrame, nested lists of numbers, or a complete
                request as a dict; one row per sample.
            timeout: Seconds to wait for the answer.

        Returns:
            A numpy array (a list where numpy is not installed); for a request that was a dict, the
            response as a dict.

        Raises:
            ModelDeploymentException: Nothing is deployed.
            PredictionError: The model did not answer with a prediction.
        """
        service = self.service()
        if service is None:
            raise ModelDeploymentException(
                f"Model {self.id!r} is not deployed, so it cannot predict. Call deploy() first."
            )
        return self.platform.predict(service, inputs, timeout=_checked_timeout(timeout))

    def _change(
        self, transition: deploying.Transition, timeout: float = deploying.DEFAULT_TIMEOUT
    ) -> Service | None:
        self._record, service = deploying.change(
            self.platform, self._record, transition, timeout=timeout
        )
        return service

    def _change_or_raise(
        self, transition: deploying.Transition, timeout: float = deploying.DEFAULT_TIMEOUT
    ) -> None:
        try:
            self._change(transition, timeout)
        except WorkloadDeploymentError as error:
            raise ModelDeploymentException(str(error)) from error


def _checked_timeout(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ModelValidationException(f"timeout is {timeout!r}; give seconds above 0.")
    return float(timeout)
