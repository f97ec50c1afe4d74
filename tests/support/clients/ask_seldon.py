"""Ask a server with seldon-core's own client, over REST and gRPC.

Reads ``{"rest": ADDRESS, "grpc": ADDRESS or null, "rows": [...], "names": [...]}`` and prints what the client was told.
"""

import json
import sys
from typing import Any

import numpy as np
from seldon_core.seldon_client import SeldonClient
from seldon_core.utils import json_to_seldon_message, seldon_message_to_json

ASKED = json.load(sys.stdin)
ROWS = np.array(ASKED["rows"], dtype=object)


def plain(answer: Any) -> dict[str, Any]:
    """Return what the client says of an answer."""
    response = answer.response
    if response is not None and not isinstance(response, dict):
        response = seldon_message_to_json(response)
    return {"success": answer.success, "message": answer.msg, "response": response}


said = {}
for transport in ("rest", "grpc"):
    address = ASKED[transport]
    if address is None:
        continue
    client = SeldonClient(
        gateway="seldon", transport=transport, gateway_endpoint=address, client_return_type="proto"
    )
    model = SeldonClient(transport=transport, microservice_endpoint=address, client_return_type="proto")
    one = client.predict(data=ROWS, names=ASKED["names"], payload_type="ndarray")
    said[transport] = {
        "gateway": plain(one),
        "json": plain(client.predict(json_data=dict(zip(ASKED["names"], ASKED["rows"][0], strict=True)))),
        "microservice": plain(
            model.microservice(data=ROWS, names=ASKED["names"], payload_type="ndarray", method="predict")
        ),
        "wrong": plain(client.predict(data=ROWS[:, :2], names=ASKED["names"][:2], payload_type="ndarray")),
    }
    truth = json_to_seldon_message({"data": {"ndarray": [[1.0]] * len(ROWS)}})
    told = client.feedback(one.request, one.response, truth, reward=1.0)
    said[transport]["feedback"] = plain(told)
print(json.dumps(said))
