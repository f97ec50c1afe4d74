"""Ask a server with requests that MLServer's types write, and read the answers by them.

MLServer's module for gRPC and Triton's cannot be in one process: both register the protocol's messages.
Reads ``{"rest": ADDRESS, "inputs": [...]}`` and prints what was read.
"""

import json
import sys
import urllib.request

from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, MetadataServerResponse

ASKED = json.load(sys.stdin)
ADDRESS = f"http://{ASKED['rest']}/v2"


def read(path: str, body: bytes | None = None) -> bytes:
    """Return what is at a path."""
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(ADDRESS + path, body, headers)  # noqa: S310 -- an address of ours
    with urllib.request.urlopen(asked) as answer:  # noqa: S310 -- as above
        return bytes(answer.read())


request = InferenceRequest(id="from mlserver", inputs=ASKED["inputs"])
body = request.model_dump_json(exclude_none=True).encode()
answer = InferenceResponse.model_validate_json(read("/models/ferry/infer", body))
model = MetadataModelResponse.model_validate_json(read("/models/ferry"))
server = MetadataServerResponse.model_validate_json(read(""))
said = {
    "id": answer.id,
    "probability": list(answer.outputs[0].data),
    "inputs": [tensor.name for tensor in model.inputs],
    "server": server.name,
}
print(json.dumps(said))
