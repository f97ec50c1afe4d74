"""The names of our own container images: the only place that says them."""

from __future__ import annotations

import os

from seatrial import __version__

PIPELINE_IMAGE = os.environ.get("SEATRIAL_PIPELINE_IMAGE", f"ghcr.io/seatrial/pipeline:{__version__}")
"""The image that pipeline steps run in on a cluster."""
