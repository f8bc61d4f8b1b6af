"""Every error that this package raises on purpose.

One class per decision that a caller can take. All share `KaptainError`, so that
`except KaptainError` catches what went wrong here and nothing else. Messages say what failed,
where, and how to mend it; the cause is chained.
"""

from __future__ import annotations


class KaptainError(Exception):
    """Base of every exception of this package."""


class InvalidModelProperty(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """A property of a model is None, blank or not legal."""


class UndefinedModelProperty(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """A property that a model must have was not given."""


class UnsupportedModelFrameworkException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """The model's framework is not supported."""


class UnsupportedAlgorithmException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """The search algorithm is unknown, or this platform cannot run it."""


class UnsupportedModelDeploymentException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """This platform cannot serve such a model."""


class UnsupportedMetricsTypeException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """Metrics of this type are not known."""


class ModelDeploymentException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """A deployment failed, or the model's deployment does not allow the action."""


class ModelValidationException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """A request is wrong, or the model is in no state for it. Nothing has been touched."""


class ImageBuildException(KaptainError):  # noqa: N818 - name of the Kaptain SDK
    """A build failed."""


class WorkloadDeploymentError(KaptainError):
    """A workload (a training, a tuning, a server) could not start or did not end well."""


class WorkloadTimeoutError(WorkloadDeploymentError):
    """A workload did not reach its end before its deadline."""


class RunNotFoundError(KaptainError):
    """No run belongs to this handle (any more)."""


class StorageError(KaptainError):
    """An object could not be read from or written to the storage."""


class ObjectNotFoundError(StorageError):
    """There is no object under this URI."""


class PreconditionFailedError(StorageError):
    """Somebody else wrote the object in the meantime; re-read it and decide again."""


class ConflictError(KaptainError):
    """A service changed since it was read; re-read it and decide again."""


class ModelNotFoundError(KaptainError):
    """No record of a model with this id was found, neither deployed nor in the storage."""


class RecordFormatError(KaptainError):
    """A stored model record is broken or of a version that this release does not know."""


class ConfigurationError(KaptainError):
    """A configuration (credentials, storage, switches, component settings) is wrong or missing."""


class PredictionError(KaptainError):
    """A deployed model did not answer a request with a prediction."""
