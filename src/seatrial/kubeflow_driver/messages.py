"""What is read of the messages of Kubeflow Pipelines and of its lineage (ML Metadata), made from a table.

A field is ``number type name``, ``*`` for a repeated one, as in their public definitions: ``task.proto`` of the former,
``metadata_store.proto`` and ``metadata_store_service.proto`` of the latter. What is not named here is kept and written
again as it came. An enumeration is read as its number; the requests for some things by their ids are all alike.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "seatrial.kubeflow_driver"
_MESSAGES = {
    "Task": "3 string pipelineName, 4 string runId, 5 string mlmdExecutionID",
    "Tasks": "1 Task* tasks",
    "Ids": "1 int64* ids",
    "Execution": "1 int64 id, 3 int32 last_known_state",
    "Executions": "1 Execution* executions",
    "Event": "1 int64 artifact_id, 4 int32 type",
    "Events": "1 Event* events",
    "Artifact": "1 int64 id, 3 string uri, 8 string type, 9 int64 create_time_since_epoch",
    "Artifacts": "1 Artifact* artifacts",
}
_FIELD = re.compile(r"(?P<number>\d+) (?P<type>\w+)(?P<repeated>\*)? (?P<name>\w+)")
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"int32": _Field.TYPE_INT32, "int64": _Field.TYPE_INT64, "string": _Field.TYPE_STRING}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for found in _FIELD.finditer(fields):
            kind = _SCALARS.get(found["type"], _Field.TYPE_MESSAGE)
            field = described.field.add(name=found["name"], number=int(found["number"]), type=kind)
            field.label = _Field.LABEL_REPEATED if found["repeated"] else _Field.LABEL_OPTIONAL
            if kind == _Field.TYPE_MESSAGE:
                field.type_name = f".{_PACKAGE}.{found['type']}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _classes()
"""The messages' classes, by name."""
