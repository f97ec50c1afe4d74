"""The steps as Kubeflow Pipelines components, a folder each; every body only calls the library."""

from functools import partial

from kfp import dsl

from seatrial.images import PIPELINE_IMAGE

step = partial(dsl.component, base_image=PIPELINE_IMAGE, install_kfp_package=False)
"""Make a function a component that runs in our own image and installs nothing when it starts."""
