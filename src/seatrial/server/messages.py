"""The messages of the gRPC protocols, made when they are imported from tables of their fields.

The tables are written after the public definitions: the Open Inference Protocol's
(https://github.com/kserve/open-inference-protocol), Seldon's ``prediction.proto`` of version 1, and
``grpc.health.v1``. So no code is generated and none is kept, no compiler is needed, and any version of
protobuf will do. They are in a pool of their own, beside whatever else defines the same messages; clients that ask
what is spoken here are told from it.

A field is ``type name``, numbered by its place; ``*`` is a repeated one, ``{}`` a map from texts, and ``|`` one
that excludes the others with it. What is not read here, such as TensorFlow's tensors, is ``bytes``: on the
wire it is the same. An enumeration is its names, numbered from 0. A call is ``name request answer``, with ``*`` where
it is answered again and again.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, empty_pb2, message_factory, struct_pb2

_INFERENCE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, string* extensions",
    "ModelMetadataRequest": "string name, string version",
    "TensorMetadata": "string name, string datatype, int64* shape",
    "ModelMetadataResponse": (
        "string name, string* versions, string platform, TensorMetadata* inputs, TensorMetadata* outputs"
    ),
    "InferParameter": (
        "bool| bool_param, int64| int64_param, string| string_param, double| double_param, uint64| uint64_param"
    ),
    "InferTensorContents": (
        "bool* bool_contents, int32* int_contents, int64* int64_contents, uint32* uint_contents, "
        "uint64* uint64_contents, float* fp32_contents, double* fp64_contents, bytes* bytes_contents"
    ),
    "InferTensor": (
        "string name, string datatype, int64* shape, InferParameter{} parameters, InferTensorContents contents"
    ),
    "RequestedOutput": "string name, InferParameter{} parameters",
    "ModelInferRequest": (
        "string model_name, string model_version, string id, InferParameter{} parameters, InferTensor* inputs, "
        "RequestedOutput* outputs, bytes* raw_input_contents"
    ),
    "ModelInferResponse": (
        "string model_name, string model_version, string id, InferParameter{} parameters, InferTensor* outputs, "
        "bytes* raw_output_contents"
    ),
}
_SELDON = {
    "Status": "int32 code, string info, string reason, StatusFlag status",
    "Metric": "string key, MetricType type, float value, string{} tags",
    "Meta": (
        "string puid, .google.protobuf.Value{} tags, int32{} routing, string{} requestPath, Metric* metrics"
    ),
    "Tensor": "int32* shape, double* values",
    "DefaultData": ("string* names, Tensor| tensor, .google.protobuf.ListValue| ndarray, bytes| tftensor"),
    "SeldonMessage": (
        "Status status, Meta meta, DefaultData| data, bytes| binData, string| strData, "
        ".google.protobuf.Value| jsonData, .google.protobuf.Any| customData"
    ),
    "Feedback": "SeldonMessage request, SeldonMessage response, float reward, SeldonMessage truth",
    "SeldonModelMetadataRequest": "string name",
    "SeldonMessageMetadata": (
        "string messagetype, .google.protobuf.Value schema, string name, string datatype, int64* shape"
    ),
    "SeldonModelMetadata": (
        "string name, string* versions, string platform, SeldonMessageMetadata* inputs, "
        "SeldonMessageMetadata* outputs, string{} custom"
    ),
    "SeldonGraphMetadata": (
        "string name, SeldonModelMetadata{} models, SeldonMessageMetadata* inputs, SeldonMessageMetadata* outputs"
    ),
}
_HEALTH = {"HealthCheckRequest": "string service", "HealthCheckResponse": "ServingStatus status"}
_ENUMERATIONS = {
    "seldon.protos": {"StatusFlag": "SUCCESS FAILURE", "MetricType": "COUNTER GAUGE TIMER"},
    "grpc.health.v1": {"ServingStatus": "UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN"},
}
_EMPTY = ".google.protobuf.Empty"
_SELDON_CALLS = "Predict SeldonMessage SeldonMessage, SendFeedback Feedback SeldonMessage"
_CALLS = {
    "inference": {
        "GRPCInferenceService": ", ".join(
            f"{name} {name}Request {name}Response"
            for name in (
                *("ServerLive", "ServerReady", "ModelReady"),
                *("ServerMetadata", "ModelMetadata", "ModelInfer"),
            )
        )
    },
    "seldon.protos": {
        "Model": f"{_SELDON_CALLS}, Metadata {_EMPTY} SeldonModelMetadata",
        "Seldon": (
            f"{_SELDON_CALLS}, ModelMetadata SeldonModelMetadataRequest SeldonModelMetadata, "
            f"GraphMetadata {_EMPTY} SeldonGraphMetadata"
        ),
    },
    "grpc.health.v1": {
        "Health": (
            "Check HealthCheckRequest HealthCheckResponse, Watch HealthCheckRequest HealthCheckResponse*"
        )
    },
}
_FIELD = re.compile(r"(?P<type>[\w.]+)(?P<form>\*|\{\}|\|)? (?P<name>\w+)")
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


def _set_type(field: Any, kind: str, package: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        enumerated = kind in _ENUMERATIONS.get(package, {})
        field.type = _Field.TYPE_ENUM if enumerated else _Field.TYPE_MESSAGE
        field.type_name = _full(kind, package)


def _full(kind: str, package: str) -> str:
    return kind if kind.startswith(".") else f".{package}.{kind}"


def _add_map(message: Any, name: str, kind: str, package: str) -> str:
    """Add the message that an entry of a map is, and return its name."""
    entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    _set_type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), kind, package)
    return f"{message.name}.{entry.name}"


def _add_message(file: Any, name: str, fields: str) -> None:
    message = file.message_type.add(name=name)
    for number, found in enumerate(_FIELD.finditer(fields), 1):
        kind, form = found["type"], found["form"]
        if form == "{}":
            kind = _add_map(message, found["name"], kind, file.package)
        field = message.field.add(name=found["name"], json_name=found["name"], number=number)
        field.label = _Field.LABEL_REPEATED if form in ("*", "{}") else _Field.LABEL_OPTIONAL
        _set_type(field, kind, file.package)
        if form == "|":
            if not message.oneof_decl:
                message.oneof_decl.add(name="choice")
            field.oneof_index = 0


def _messages(package: str, table: dict[str, str]) -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(known.DESCRIPTOR.name for known in _KNOWN)
    for name, names in _ENUMERATIONS.get(package, {}).items():
        enumeration = file.enum_type.add(name=name)
        for number, value in enumerate(names.split()):
            enumeration.value.add(name=value, number=number)
    for name, fields in table.items():
        _add_message(file, name, fields)
    for name, calls in _CALLS[package].items():
        service = file.service.add(name=name)
        for call in calls.split(", "):
            method, request, answer = call.split()
            service.method.add(
                name=method,
                input_type=_full(request, package),
                output_type=_full(answer.rstrip("*"), package),
                server_streaming=answer.endswith("*"),
            )
    POOL.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{package}.{name}"))
        for name in table
    }


_KNOWN = (any_pb2, empty_pb2, struct_pb2)
POOL = descriptor_pool.DescriptorPool()
"""Describes all that is spoken here."""
for _file in _KNOWN:
    POOL.AddSerializedFile(_file.DESCRIPTOR.serialized_pb)

INFERENCE: dict[str, Any] = _messages("inference", _INFERENCE)
"""The Open Inference Protocol's messages, by name."""
SELDON: dict[str, Any] = _messages("seldon.protos", _SELDON)
"""Seldon's messages, by name."""
HEALTH: dict[str, Any] = _messages("grpc.health.v1", _HEALTH)
"""The messages of gRPC's own health checks, by name."""
EMPTY = empty_pb2.Empty
"""A message without fields."""


def request_of(service: str, method: str) -> Any:
    """Return the message that a call takes."""
    asked = POOL.FindServiceByName(service).methods_by_name[method].input_type
    return message_factory.GetMessageClass(asked)
