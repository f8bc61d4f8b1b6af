"""Between arrays, tables and lists, and the requests and responses of the protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kaptain_zen.exceptions import KaptainError, ModelValidationException, PredictionError
from kaptain_zen.model.inference import from_response, to_request

NUMBERS = st.sampled_from(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
FLOATS = st.sampled_from(["float16", "float32", "float64"])


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape = arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)
    if draw(st.booleans()):
        return draw(arrays.arrays(draw(NUMBERS), shape))
    finite = {"allow_nan": False, "allow_infinity": False}
    return draw(arrays.arrays(draw(FLOATS), shape, elements=finite))


@given(tensors())
def test_an_array_comes_back_as_it_went(array: np.ndarray[Any, Any]) -> None:
    request = json.loads(json.dumps(to_request(array), allow_nan=False))
    (tensor,) = request["inputs"]

    back = from_response({"outputs": [tensor]})

    assert back.dtype == array.dtype
    expected = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    assert back.tolist() == expected.tolist()
    assert back.shape == expected.shape


@given(tensors())
def test_lists_are_sent_like_the_array_of_them(array: np.ndarray[Any, Any]) -> None:
    (of_list,) = to_request(array.tolist())["inputs"]
    (of_array,) = to_request(array)["inputs"]

    assert of_list["shape"] == of_array["shape"] == list(array.shape)
    assert of_list["data"] == of_array["data"]


def test_the_eighth_digit_of_the_tutorial() -> None:
    row = [0.0, 5.0, 13.0, 9.0]

    assert to_request([row]) == {
        "inputs": [{"name": "predict", "shape": [1, 4], "datatype": "FP64", "data": row}]
    }


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        ([[True, False]], "BOOL"),
        ([[1, 2]], "INT64"),
        ([[1, 2.5]], "FP64"),
        ([[2**63]], "FP64"),
        (["a", "b"], "BYTES"),
        ([np.array([1.0, 2.0])], "FP64"),
        ([(1, 2), (3, 4)], "INT64"),
        (np.array([["a"]]), "BYTES"),
        (pd.Series([1, 2], dtype="int8"), "INT8"),
    ],
)
def test_the_datatype_follows_from_the_values(values: Any, datatype: str) -> None:
    (tensor,) = to_request(values)["inputs"]

    assert tensor["datatype"] == datatype
    json.dumps(tensor, allow_nan=False)


def test_a_data_frame_becomes_an_input_per_column() -> None:
    frame = pd.DataFrame({"age": [30, 40], "name": ["x", "y"], 7: [0.5, 1.5]})

    request = to_request(frame)

    assert request["parameters"] == {"content_type": "pd"}
    assert request["inputs"] == [
        {"name": "age", "shape": [2, 1], "datatype": "INT64", "data": [30, 40]},
        {
            "name": "name",
            "shape": [2, 1],
            "datatype": "BYTES",
            "data": ["x", "y"],
            "parameters": {"content_type": "str"},
        },
        {"name": "7", "shape": [2, 1], "datatype": "FP64", "data": [0.5, 1.5]},
    ]
    assert to_request({"age": [30, 40], "name": ["x", "y"], "7": [0.5, 1.5]}) == request


def test_mlserver_reads_a_data_frame_as_it_was() -> None:
    from mlserver.codecs import PandasCodec
    from mlserver.types import InferenceRequest

    frame = pd.DataFrame({"age": [30, 40], "name": ["x", "y"], "ok": [True, False]})

    request = InferenceRequest.model_validate(json.loads(json.dumps(to_request(frame))))

    pd.testing.assert_frame_equal(
        PandasCodec.decode_request(request), frame, check_dtype=False, check_column_type=False
    )


def test_a_complete_request_is_sent_as_it_is() -> None:
    request = {
        "id": "7",
        "inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1.0], "extra": 1}],
        "outputs": [{"name": "predict_proba"}],
    }

    assert to_request(request) == request


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (None, "None"),
        (5, "5"),
        ("text", "'text'"),
        (b"bytes", "bytes"),
        ([], "empty"),
        ([[]], "empty"),
        ({}, "no column"),
        ([[1], [2, 3]], "row 1 has another shape"),
        ([[1, 2], 3], "row 1"),
        ([1, [2]], "row 1"),
        ([[1, "a"]], "int, str"),
        ([[None]], "NoneType"),
        ([[float("nan")]], "NaN"),
        (np.array([[np.inf]]), "NaN, infinity"),
        ([[10**400]], "infinity"),
        (np.array(5), "array(5)"),
        (np.array([object()]), "object"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "dates"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), "'t' holds dates"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "same name"),
        ({"a": [1], "b": [1, 2]}, "differ in length"),
        ({"inputs": []}, "complete request"),
        ({"inputs": [{"name": "a"}]}, "complete request"),
        (object(), "object"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_reason(inputs: Any, said: str) -> None:
    with pytest.raises(ModelValidationException) as caught:
        to_request(inputs)

    assert said in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON)
def test_anything_is_either_sent_as_json_or_refused(value: Any) -> None:
    try:
        request = to_request(value)
    except KaptainError:
        return
    json.dumps(request)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "outputs": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "name": JSON,
                        "shape": st.lists(st.integers(-2, 4)) | JSON,
                        "datatype": st.sampled_from(["FP32", "INT8", "BYTES", "NEW"]) | JSON,
                        "data": JSON,
                    },
                )
                | JSON,
                max_size=3,
            )
            | JSON
        },
    )
    | JSON
)
def test_anything_is_either_read_or_an_error_of_ours(response: Any) -> None:
    with suppress(PredictionError):
        from_response(response)


def test_several_outputs_come_back_by_name() -> None:
    outputs = [
        {"name": "predict", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]},
        {"name": "proba", "shape": [2, 2], "datatype": "FP64", "data": [[0.1, 0.9], [0.8, 0.2]]},
    ]

    values = from_response({"outputs": outputs})

    assert values["predict"].tolist() == [1, 2]
    assert values["proba"].tolist() == [[0.1, 0.9], [0.8, 0.2]]


def test_values_that_do_not_fill_their_shape_are_refused() -> None:
    output = {"name": "predict", "shape": [3], "datatype": "INT64", "data": [1, 2]}

    with pytest.raises(PredictionError, match="2 values do not fill the shape"):
        from_response({"outputs": [output]})


def test_without_numpy_lists_go_and_come() -> None:
    code = """
import sys
sys.modules["numpy"] = None
from kaptain_zen.model.inference import from_response, to_request
print(to_request([[1, 2], [3, 4]])["inputs"][0]["data"])
output = {"name": "p", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]}
print(from_response({"outputs": [output]}))
output = {"name": "p", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]}
print(from_response({"outputs": [output]}))
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["[1, 2, 3, 4]", "[[1, 2], [3, 4]]", "[1, 2]"]
