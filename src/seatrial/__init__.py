"""Seatrial takes a scikit-learn model to a service that is tested, promoted, watched and retrained.

The package has one module (or package) for each room of the loop, in the loop's order, and
imports point one way, back along it: see ``docs/architecture.md``.
"""

from importlib.metadata import version

__version__ = version("seatrial")
