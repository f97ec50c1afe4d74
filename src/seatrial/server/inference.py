"""Write predictions as the Open Inference Protocol has them over REST: as JSON, or as bytes after it."""

from __future__ import annotations

import orjson

from seatrial.server.answers import Answer
from seatrial.server.batching import Answered
from seatrial.server.binary import write_elements
from seatrial.server.requests import InferRequest

DATATYPES = {"probability": "FP64", "flagged": "BOOL", "prediction_id": "BYTES"}
"""The outputs' datatypes."""
HEADER_LENGTH = b"inference-header-content-length"
_NAMES = {name: b'{"name":"' + name.encode() for name in DATATYPES}
_ENCODED = {name: datatype.encode() for name, datatype in DATATYPES.items()}


def write_inference(head: bytes, request: InferRequest, answered: Answered) -> bytes | Answer:
    """Return predictions as JSON, with those outputs after it that the client wants as bytes.

    The JSON is put together from parts, most of which never change.

    Args:
        head: How each answer of the model begins.
        request: What was asked.
        answered: What the model said.
    """
    parts = [head]
    if request.request_id is not None:
        parts += (b',"id":', orjson.dumps(request.request_id))
    parts.append(b',"outputs":[')
    shape = b'","shape":[%d],"datatype":"' % len(request.rows)
    binary, tensors = request.binary, []
    for output in request.outputs:
        values = getattr(answered, output)
        if binary and output in binary:
            tensors.append(write_elements(values, DATATYPES[output]))
            size = b'","parameters":{"binary_data_size":%d}' % len(tensors[-1])
            parts += (_NAMES[output], shape, _ENCODED[output], size, b"},")
        else:
            parts += (_NAMES[output], shape, _ENCODED[output], b'","data":', orjson.dumps(values), b"},")
    parts[-1] = b"}]}"
    text = b"".join(parts)
    if not tensors:
        return text
    return Answer(
        b"".join((text, *tensors)),
        content_type=b"application/octet-stream",
        headers=((HEADER_LENGTH, b"%d" % len(text)),),
    )
