"""What every part of a model shares: its record, its platform, what is noted about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.model import presentation, states
from kaptain_zen.model.metrics import Metric, MetricsType
from kaptain_zen.model.record import DataSet, HistoryEntry, Hyperparameters, ModelRecord
from kaptain_zen.model.repository import RecordRepository
from kaptain_zen.model.spec import ModelSpec

if TYPE_CHECKING:
    from kaptain_zen.config import Config
    from kaptain_zen.platform.platform import Platform

T = TypeVar("T", bound=BaseModel)


def default_platform(config: Config | None) -> Platform:
    """The platform of a model that was given none."""
    from kaptain_zen.platform.platform import local

    return local(config)


class ModelBase:
    """A record, and the platform that it lives on."""

    _record: ModelRecord
    _config: Config | None
    _chosen_platform: Platform | None
    _last_error: str | None

    def _begin(self, record: ModelRecord, config: Config | None, platform: Platform | None) -> None:
        if config is not None and platform is not None:
            raise ModelValidationException(
                "Give either `config` or `platform`: a platform has its configuration already."
            )
        self._record = record
        self._config = config
        self._chosen_platform = platform
        self._last_error = None

    @property
    def record(self) -> ModelRecord:
        """Everything known of the model, as one immutable value."""
        return self._record

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        return self._record.spec

    @property
    def id(self) -> str:
        """Its identifier."""
        return self.spec.id

    @property
    def platform(self) -> Platform:
        """Where it runs."""
        if self._chosen_platform is None:
            self._chosen_platform = default_platform(self._config)
        return self._chosen_platform

    @property
    def serving_config(self) -> dict[str, Any]:
        """How it is served; assign another dict before deploying."""
        return dict(self.spec.serving_config)

    @serving_config.setter
    def serving_config(self, value: Mapping[str, Any] | None) -> None:
        spec = ModelSpec(**{**self.spec.model_dump(), "serving_config": value})
        self._record = self._record.model_copy(update={"spec": spec})

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        """Those of the newest training, or those that the newest tuning found; None before."""
        values = self._record.hyperparameters
        return None if values is None else dict(values)

    @property
    def metrics(self) -> dict[str, Metric]:
        """What the newest training or best trial reported: `metrics["accuracy"]["latest"]`."""
        return dict(self._record.metrics)

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """What was done to it, oldest first."""
        return self._record.history

    @property
    def last_error(self) -> str | None:
        """Why the last train, tune or deploy returned False; None when it did not."""
        return self._last_error

    def log_data(
        self,
        name: str,
        uri: str,
        description: str | None = None,
        features: list[str] | None = None,
        version: str | None = None,
    ) -> None:
        """Note an input data set.

        Args:
            name: Of the data set.
            uri: Where it is.
            description: A sentence.
            features: Those that are used.
            version: Of the data set.

        Raises:
            ModelValidationException: The name or the URI is blank.
        """
        dataset = checked(
            DataSet,
            {
                "name": name,
                "uri": uri,
                "description": description,
                "features": tuple(features or ()),
                "version": version,
            },
        )
        self._save(states.with_data(self._record, dataset))

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        metrics_type: str | MetricsType,
        uri: str | None = None,
    ) -> None:
        """Note evaluation metrics.

        Args:
            metrics: Numbers by name.
            metrics_type: `training`, `testing`, `validation` or `production`.
            uri: Where more about them is.

        Raises:
            ModelValidationException: A metric is no finite number.
            UnsupportedMetricsTypeException: The type is not known.
        """
        self._save(
            states.evaluated(
                self._record,
                metrics=metrics,
                metrics_type=metrics_type,
                now=datetime.now(UTC),
                uri=uri,
            )
        )

    def __repr__(self) -> str:
        """Id, state, revision and deployment in one line."""
        return presentation.line(self._record)

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return presentation.html(self._record)

    def _save(self, record: ModelRecord) -> None:
        self._record = RecordRepository(self.platform.store).save(record)


def checked(kind: type[T], values: dict[str, Any]) -> T:
    """Make a request, saying what is wrong with it in our own words."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "request"
        raise ModelValidationException(
            f"{name} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
        ) from None
