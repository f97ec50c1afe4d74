"""Ask a server with Triton's own clients, over REST and gRPC.

Reads ``{"rest": ADDRESS, "grpc": ADDRESS, "inputs": [...]}`` and prints what each client was told.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

ASKED = json.load(sys.stdin)
TYPES = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}


def ask(module: Any, client: Any, *, binary: bool) -> dict[str, Any]:
    """Predict with a client, and return what it read from the answer and what it was told of the server."""
    inputs, outputs = [], []
    for tensor in ASKED["inputs"]:
        item = module.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        values = np.array(tensor["data"], dtype=TYPES[tensor["datatype"]])
        if module is tritonclient.http:
            item.set_data_from_numpy(values, binary_data=binary)
            outputs = [
                module.InferRequestedOutput(name, binary_data=binary)
                for name in ("prediction_id", "probability", "flagged")
            ]
        else:
            item.set_data_from_numpy(values)
        inputs.append(item)
    if binary:  # No output is named: the client asks for all of them, as bytes.
        outputs = []
    answer = client.infer("ferry", inputs, outputs=outputs or None, request_id="from triton")
    response = answer.get_response()
    found = {
        "id": response["id"] if isinstance(response, dict) else response.id,
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("ferry"),
        "probability": answer.as_numpy("probability").tolist(),
        "flagged": answer.as_numpy("flagged").tolist(),
        "prediction_id": [
            item.decode() if isinstance(item, bytes) else item for item in answer.as_numpy("prediction_id")
        ],
    }
    try:
        client.infer("other", inputs)
    except InferenceServerException as error:
        found["other"] = str(error)
    return found


said = {}
with tritonclient.http.InferenceServerClient(ASKED["rest"]) as rest:
    said["json"] = ask(tritonclient.http, rest, binary=False)
    said["binary"] = ask(tritonclient.http, rest, binary=True)
    said["server"] = rest.get_server_metadata()
    said["model"] = rest.get_model_metadata("ferry")
if ASKED.get("grpc"):
    with tritonclient.grpc.InferenceServerClient(ASKED["grpc"]) as grpc:
        said["grpc"] = ask(tritonclient.grpc, grpc, binary=True)
        said["grpc_server"] = grpc.get_server_metadata(as_json=True)
        said["grpc_model"] = grpc.get_model_metadata("ferry", as_json=True)
print(json.dumps(said))
