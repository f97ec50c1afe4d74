"""Promotion: what an environment serves, what it demands, and who may say so.

:mod:`seatrial.promotion.pointer` is the record of a model in an environment, whose newest move is the
pointer; :mod:`seatrial.promotion.environment` reads what ``manifests/environments/ENV`` says of an
environment; :mod:`seatrial.promotion.approvals` are a person's signed word for a move.
"""

from seatrial.promotion.pointer import (
    Pointer,
    Stage,
    pointer_log,
    promote,
    read_pointer,
    wait_for_bundle,
)

__all__ = ["Pointer", "Stage", "pointer_log", "promote", "read_pointer", "wait_for_bundle"]
