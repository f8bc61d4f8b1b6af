"""Between what a data scientist holds and requests of the Open Inference Protocol, version 2.

Arrays, data frames and nested lists become a request; the outputs of a response become arrays
again. Nothing here imports numpy or pandas unless they are there and needed: an array is known by
what it can do.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kaptain_zen.exceptions import ModelValidationException, PredictionError

INPUT_NAME = "predict"
_INT64 = range(-(2**63), 2**63)
_DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}
_COLUMN_OF_ONE = 2
_SHOWN = 60


def to_request(inputs: Any) -> dict[str, Any]:
    """Make a request.

    Args:
        inputs: A numpy array or nested lists, one row per sample; a pandas DataFrame, or a dict of
            columns, each of which becomes an input of its own; or a complete request: a dict with
            `inputs`.

    Returns:
        The request, ready to be written as JSON.

    Raises:
        ModelValidationException: They are none of these, or hold what JSON cannot (NaN, infinity,
            dates, objects).
    """
    if isinstance(inputs, Mapping):
        if "inputs" in inputs:
            return _complete(inputs)
        return _table({str(name): column for name, column in inputs.items()})
    if hasattr(inputs, "columns") and hasattr(inputs, "dtypes"):
        names = list(inputs.columns)
        if len({str(name) for name in names}) != len(names):
            raise ModelValidationException("Two columns of the data frame have the same name.")
        return _table({str(name): inputs[name] for name in names})
    return {"inputs": [_tensor(INPUT_NAME, inputs)]}


def from_response(response: Any) -> Any:
    """Take the predictions out of a response.

    Args:
        response: The response, read from JSON.

    Returns:
        A numpy array, or nested lists where numpy is not installed; a dict of them by name, if
        there is more than one output. What servers send as a column of one (`[n, 1]`) is as flat
        as what `predict` returned there.

    Raises:
        PredictionError: It is no response of this protocol.
    """
    outputs = response.get("outputs") if isinstance(response, Mapping) else None
    if not isinstance(outputs, list) or not outputs:
        raise PredictionError(f"The answer has no outputs: {_short(response)}")
    values = {}
    for output in outputs:
        try:
            values[str(output["name"])] = _decoded(output)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise PredictionError(
                f"An output of the answer cannot be read ({type(error).__name__}: {error}): "
                f"{_short(output)}"
            ) from error
    return next(iter(values.values())) if len(values) == 1 else values


def _complete(request: Mapping[str, Any]) -> dict[str, Any]:
    tensors = request["inputs"]
    needed = {"name", "shape", "datatype", "data"}
    if (
        not isinstance(tensors, Sequence)
        or not tensors
        or not all(isinstance(t, Mapping) and needed <= set(t) for t in tensors)
    ):
        raise ModelValidationException(
            "A complete request is a dict whose `inputs` is a list of dicts with "
            f"{', '.join(sorted(needed))}. To send columns, leave the key `inputs` to the protocol."
        )
    return dict(request)


def _table(columns: dict[str, Any]) -> dict[str, Any]:
    if not columns:
        raise ModelValidationException("There is no column to predict from.")
    tensors = [_tensor(name, column) for name, column in columns.items()]
    lengths = {tensor["name"]: tensor["shape"][0] for tensor in tensors}
    if len(set(lengths.values())) > 1:
        raise ModelValidationException(f"The columns differ in length: {lengths}.")
    for tensor in tensors:
        # A column of a table, to servers, is a tensor of so many rows and one column.
        if len(tensor["shape"]) == 1:
            tensor["shape"] = [*tensor["shape"], 1]
    return {"parameters": {"content_type": "pd"}, "inputs": tensors}


def _tensor(name: str, values: Any) -> dict[str, Any]:
    datatype = _DATATYPES.get(str(getattr(values, "dtype", "")))
    shape, flat = _flattened(values, name)
    if not flat:
        raise ModelValidationException(f"Input {name!r} is empty; give at least one sample.")
    tensor: dict[str, Any] = {
        "name": name,
        "shape": shape,
        "datatype": datatype or _datatype(flat, name),
        "data": flat,
    }
    if tensor["datatype"] == "BYTES":
        tensor["parameters"] = {"content_type": "str"}
    elif tensor["datatype"].startswith("FP") and not all(map(_is_finite, flat)):
        raise ModelValidationException(
            f"Input {name!r} holds NaN, infinity or numbers beyond them, which the protocol's JSON "
            f"cannot carry. Fill or drop these values first."
        )
    return tensor


def _flattened(values: Any, name: str) -> tuple[list[int], list[Any]]:
    """The shape of nested lists, and their values in row-major order."""
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if hasattr(values, "ravel") and values.shape:
        if values.dtype.kind in "mM":
            # Their tolist() makes numbers of them, which would be sent without a word.
            raise ModelValidationException(
                f"Input {name!r} holds dates or times; turn them into numbers or texts first."
            )
        return list(values.shape), values.ravel().tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ModelValidationException(
            f"Input {name!r} is {_short(values)}; give an array, a data frame or nested lists, one "
            f"row per sample."
        )
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in values]
    nested = [isinstance(row, Sequence) and not isinstance(row, str | bytes) for row in rows]
    if not any(nested):
        return [len(rows)], rows
    parts = [
        _flattened(row, name) if deep else (None, [])
        for row, deep in zip(rows, nested, strict=True)
    ]
    shape = parts[0][0]
    uneven = next((i for i, (other, _) in enumerate(parts) if other != shape), None)
    if shape is None or uneven is not None:
        raise ModelValidationException(
            f"Input {name!r} is not rectangular: row {uneven or 0} has another shape than row 0. "
            f"Every sample needs the same number of values."
        )
    return [len(rows), *shape], [value for _, part in parts for value in part]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _datatype(flat: list[Any], name: str) -> str:
    kinds = {type(value) for value in flat}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    if kinds == {int} and all(value in _INT64 for value in flat):
        return "INT64"
    if kinds <= {int, float}:
        return "FP64"
    listed = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ModelValidationException(
        f"Input {name!r} holds values of type {listed}; the protocol carries numbers, or truth "
        f"values, or texts, all of one kind."
    )


def _decoded(output: Mapping[str, Any]) -> Any:
    shape = [int(size) for size in output["shape"]]
    if len(shape) == _COLUMN_OF_ONE and shape[1] == 1:
        shape = shape[:1]
    data = output["data"]
    flat = _flattened(data, str(output["name"]))[1] if isinstance(data, list) and data else data
    if not isinstance(flat, list) or len(flat) != math.prod(shape):
        raise ValueError(f"{len(flat)} values do not fill the shape {output['shape']}")
    try:
        import numpy as np
    except ImportError:
        return _nested(flat, shape)
    return np.array(flat, dtype=_DTYPES.get(output["datatype"])).reshape(shape)


def _nested(flat: list[Any], shape: list[int]) -> Any:
    """Bring flat values back into nested lists."""
    if len(shape) <= 1:
        return flat if shape else flat[0]
    step = math.prod(shape[1:])
    return [_nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
