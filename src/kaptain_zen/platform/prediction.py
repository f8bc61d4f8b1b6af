"""Asking a deployed model for predictions, over HTTP and with a deadline."""

from __future__ import annotations

import ipaddress
import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from kaptain_zen.exceptions import ModelValidationException, PredictionError
from kaptain_zen.model.inference import from_response, to_request
from kaptain_zen.model.ports import Service

_SHOWN = 500
_ADVICE = {
    400: "Check that the inputs have the shape and the types that the model was trained with.",
    401: "The address asks for credentials.",
    403: "The address asks for credentials.",
    404: "No model of this name is served there; look at status().",
    413: "Send fewer samples at once.",
    422: "Check that the inputs have the shape and the types that the model was trained with.",
    429: "Send fewer requests at once.",
    500: "The model failed. Often the inputs have not the shape or the types that it was trained "
    "with; the service's logs hold its error.",
    502: "Its server has ended; look at the service's logs, and deploy it or start it again.",
    503: "Wait until status() says that it is ready; start it if it is stopped.",
    504: "Send fewer samples at once, or look at the service's logs.",
}


def predict(service: Service, inputs: Any, *, timeout: float) -> Any:
    """Ask a service for predictions.

    Args:
        service: The service.
        inputs: What `kaptain_zen.model.inference.to_request` takes.
        timeout: Seconds until the whole answer must be here.

    Returns:
        A numpy array (nested lists without numpy), or a dict of them by name if the model has
        several outputs; for a complete request the response as it came.

    Raises:
        ModelValidationException: The inputs cannot be sent.
        PredictionError: There was no answer in time, or it is no prediction.
    """
    request = to_request(inputs)
    response = post(service.prediction_url, request, timeout=timeout)
    if isinstance(inputs, Mapping) and "inputs" in inputs:
        return response
    return from_response(response)


def post(url: str, request: Mapping[str, Any], *, timeout: float) -> Any:
    """Send a request and read the JSON of its answer.

    Args:
        url: Where to.
        request: What.
        timeout: Seconds until the whole answer must be here.

    Raises:
        ModelValidationException: The request cannot be written as JSON.
        PredictionError: There was no answer, or one with an error, or none in time.
    """
    import httpx

    _keep_quiet()
    try:
        body = json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ModelValidationException(f"The request cannot be written as JSON: {error}.") from None
    deadline = time.monotonic() + timeout
    headers = {"Content-Type": "application/json"}
    parts = urlsplit(url)
    try:
        # Certificates take long to load, and are of no use without TLS. A proxy cannot reach the
        # loopback interface of this machine.
        with (
            httpx.Client(
                verify=parts.scheme == "https",
                trust_env=not _is_loopback(parts.hostname),
                timeout=timeout,
            ) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            received = bytearray()
            for piece in answer.iter_bytes():
                received += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer came too slowly")
    except httpx.TimeoutException:
        raise PredictionError(
            f"POST {url} was not answered within {timeout:g} s. Give a longer timeout, send fewer "
            f"samples at once, or look at the service's logs."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PredictionError(
            f"POST {url} was not answered: {str(error) or type(error).__name__}. See with status() "
            f"whether the service is ready, and deploy it or start it again if it is not."
        ) from error
    value = _json(bytes(received))
    if not answer.is_success:
        said = value.get("error") if isinstance(value, dict) else None
        text = said or received.decode("utf-8", "replace").strip() or answer.reason_phrase
        advice = _ADVICE.get(answer.status_code, "Look at the service's logs.")
        raise PredictionError(
            f"POST {url} was answered with {answer.status_code}: {str(text)[:_SHOWN]}\n{advice}"
        )
    if value is None:
        raise PredictionError(
            f"POST {url} was answered with {answer.status_code}, but not in JSON. Is this the "
            f"address of a model server that speaks the Open Inference Protocol?"
        )
    return value


def _keep_quiet() -> None:
    """Keep httpx from logging every request, which would drown a step's log in predictions.

    An application that has set the level of httpx's logger is left alone.
    """
    logger = logging.getLogger("httpx")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def _json(data: bytes) -> Any:
    with suppress(ValueError):
        return json.loads(data)
    return None


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return False
