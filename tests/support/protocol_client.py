"""Sends requests of REST and gRPC from a pod, and says what came back: it runs in the server's image.

Standard input is a JSON object: for each name ``address``, ``path``, ``body`` (base64) and ``headers``; a path of
two parts with a dot in the first, as ``/inference.GRPCInferenceService/ModelInfer``, is a call of gRPC. Standard
output is one too: for each name ``status``, ``body`` (base64) and ``headers``.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
from typing import Any

import grpc

TIMEOUT_SECONDS = 60


def over_rest(address: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Post a body, and return what came back."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return {
        "status": answer.status,
        "body": base64.b64encode(content).decode(),
        "headers": {name.lower(): value for name, value in answer.headers.items()},
    }


def over_grpc(address: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Make a call, and return what came back; one that fails raises."""
    with grpc.insecure_channel(address) as channel:
        content = channel.unary_unary(path)(body, timeout=TIMEOUT_SECONDS, metadata=list(headers.items()))
    return {"status": http.client.OK, "body": base64.b64encode(content).decode(), "headers": {}}


def main() -> None:
    """Send what standard input says, one after the other."""
    said = {}
    for name, request in json.load(sys.stdin).items():
        send = over_grpc if "." in request["path"].split("/")[1] else over_rest
        body = base64.b64decode(request["body"])
        said[name] = send(request["address"], request["path"], body, request["headers"])
    print(json.dumps(said))


if __name__ == "__main__":
    main()
