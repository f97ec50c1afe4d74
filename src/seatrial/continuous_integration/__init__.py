"""Continuous integration of models: what a change touches is checked, run on a sample, and reported.

One command, ``seatrial ci``, that any CI service calls. It asks git which models a change touches,
and does for each what a careful colleague would do before saying yes. What a change leaves as it was
is not trained again: its bundle is used on.
"""

from seatrial.continuous_integration.changes import Changes, affected_models, changes_since
from seatrial.continuous_integration.inputs import INPUTS_LABEL, image_inputs, recipe_digest
from seatrial.continuous_integration.integrate import Integration, ModelChecks, Place, Stage, integrate
from seatrial.continuous_integration.summary import write_summary

__all__ = [
    "INPUTS_LABEL",
    "Changes",
    "Integration",
    "ModelChecks",
    "Place",
    "Stage",
    "affected_models",
    "changes_since",
    "image_inputs",
    "integrate",
    "recipe_digest",
    "write_summary",
]
