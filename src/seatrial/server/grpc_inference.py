"""The Open Inference Protocol's messages over gRPC: read into the same requests as those over REST, and answered.

Tensors come as bytes (``raw_input_contents``) or in fields of their type; the answer has the form of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seatrial.bundle import InputColumn
from seatrial.errors import RequestError
from seatrial.server.batching import Answered
from seatrial.server.binary import BYTES, read_elements, text, write_elements
from seatrial.server.inference import DATATYPES
from seatrial.server.messages import INFERENCE
from seatrial.server.requests import (
    OUTPUTS,
    InferRequest,
    Tensor,
    check_length,
    check_name,
    check_output,
    read_id,
    read_rows,
    read_shape,
    row_count,
)

_FIELDS = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def read_inference(message: Any, inputs: Sequence[InputColumn], *, maximum_rows: int) -> InferRequest:
    """Read a request for predictions.

    Args:
        message: A ``ModelInferRequest``.
        inputs: The model's inputs.
        maximum_rows: Most rows that a request may have.

    Raises:
        RequestError: if it is malformed.
    """
    if not message.inputs:
        raise RequestError("'inputs' must be a list of tensors. Got [] instead.")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            f"raw_input_contents must have one entry for each of the {len(message.inputs)} inputs. "
            f"Got {len(raw)} instead."
        )
    known = [rule.name for rule in inputs]
    tensors: dict[str, Tensor] = {}
    for number, tensor in enumerate(message.inputs):
        check_name(tensor.name, known, tensors, f"inputs[{number}]")
        place = f"inputs[{number}] ({tensor.name})"
        tensors[tensor.name] = _tensor(tensor, raw[number] if raw else None, place)
    count = row_count(tensors, maximum_rows)
    wanted = [check_output(output.name, number) for number, output in enumerate(message.outputs)]
    outputs = tuple(dict.fromkeys(wanted)) or OUTPUTS
    return InferRequest(
        rows=read_rows(tensors, inputs, count),
        request_id=read_id(message.id, "'id'") or None,
        outputs=outputs,
        binary=frozenset(outputs) if raw else frozenset(),
    )


def _tensor(tensor: Any, raw: bytes | None, place: str) -> Tensor:
    shape, datatype = read_shape(list(tensor.shape), place), tensor.datatype
    field = _FIELDS.get(datatype)
    if field is None:
        return Tensor(place, datatype, shape[0], [])  # No input is of this type, and that is what is said.
    if raw is not None:
        if tensor.HasField("contents"):
            raise RequestError(f"{place} must have either contents or raw_input_contents. Got both instead.")
        return Tensor(place, datatype, shape[0], read_elements(raw, datatype, shape[0], f"{place}.data"))
    data = list(getattr(tensor.contents, field))
    check_length(len(data), shape[0], place)
    if datatype == BYTES:
        data = [text(item, f"{place}.data[{row}]") for row, item in enumerate(data)]
    return Tensor(place, datatype, shape[0], data)


def write_inference(name: str, request: InferRequest, answered: Answered) -> Any:
    """Return the ``ModelInferResponse`` to a request.

    Args:
        name: The model's name.
        request: What was asked.
        answered: What the model said.
    """
    response = INFERENCE["ModelInferResponse"](
        model_name=name, model_version=answered.bundle, id=request.request_id or ""
    )
    response.parameters["bundle"].string_param = answered.bundle
    for output in request.outputs:
        values, datatype = getattr(answered, output), DATATYPES[output]
        tensor = response.outputs.add(name=output, datatype=datatype, shape=[len(request.rows)])
        if output in request.binary:
            response.raw_output_contents.append(write_elements(values, datatype))
        else:
            plain = [value.encode() for value in values] if datatype == BYTES else values
            getattr(tensor.contents, _FIELDS[datatype]).extend(plain)
    return response


def write_description(described: dict[str, Any]) -> Any:
    """Return the ``ModelMetadataResponse`` that says what is said over REST.

    Args:
        described: The model's metadata.
    """
    keys = ("name", "versions", "platform")
    tensors = {
        side: [{key: tensor[key] for key in ("name", "datatype", "shape")} for tensor in described[side]]
        for side in ("inputs", "outputs")
    }
    return INFERENCE["ModelMetadataResponse"](**{key: described[key] for key in keys}, **tensors)
