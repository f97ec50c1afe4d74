"""Sees that Argo's controller takes note of what was changed in a run.

After the controller has written a run, it puts what it wrote over what it knows of it (``INFORMER_WRITE_BACK`` in its
``operator.go``: version 3's default, and set by our chart for version 4). Where somebody else's change has come in that
very moment, the controller does not know of it any more, and would not look at the run until it changes again. So a run
that stays as we left it is touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from seatrial.cluster_setup.entry import say
from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.workflows import Object, touching, version_of

FIRST_SECONDS, TIMES, LOOK_SECONDS = 2.0, 5, 0.5
"""A run is touched after 2, 4, 8, 16 and 32 s; by then it is idle for a reason of its own."""


class Changed(Protocol):
    """Runs that are read and changed one by one."""

    def get(self, name: str) -> Object | None:
        """Return a workflow, or None where there is none.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """

    def patch(self, name: str, change: Object) -> Object | None:
        """Change a workflow and return it; None where it is another one by now.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """


@dataclass(frozen=True)
class _Left:
    """A run as we left it: its version, how often it was touched, and when it is looked at again."""

    version: str
    touched: int
    due: float


class Reminders:
    """Touches runs that stay as we left them.

    Args:
        runs: The runs.
        clock: What time it is, in seconds.
    """

    def __init__(self, runs: Changed, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs, self._clock = runs, clock
        self._left: dict[str, _Left] = {}
        self._lock, self._ending = threading.Lock(), threading.Event()

    def left(self, workflow: Object) -> None:
        """Note a run as we left it."""
        self._note(workflow, _Left(version_of(workflow), 0, self._clock() + FIRST_SECONDS))

    def found(self, workflow: Object) -> None:
        """Note a run that is at work, which the process before this one may have left so: it is touched once."""
        self._note(workflow, _Left(version_of(workflow), TIMES - 1, self._clock() + FIRST_SECONDS))

    def look(self) -> None:
        """Touch each run that was left long enough ago and is still the same.

        Raises:
            ClusterError: if Kubernetes does not answer; what is due stays due.
        """
        with self._lock:
            due = {name: left for name, left in self._left.items() if left.due <= self._clock()}
        for name, left in due.items():
            further = self._touched(name, left)
            with self._lock:
                if self._left[name] is not left:
                    continue  # It was changed by us meanwhile.
                if further:
                    self._left[name] = further
                else:
                    del self._left[name]

    def keep_looking(self) -> None:
        """Look again and again, until it is told to end."""
        while not self._ending.wait(LOOK_SECONDS):
            try:
                self.look()
            except ClusterError as error:
                say(f"{error} It is asked again.")

    def end(self) -> None:
        """Look no more."""
        self._ending.set()

    def _note(self, workflow: Object, left: _Left) -> None:
        with self._lock:
            self._left[workflow["metadata"]["name"]] = left

    def _touched(self, name: str, left: _Left) -> _Left | None:
        """Touch a run if it is still the same; None if it need not be looked at again."""
        workflow = self._runs.get(name)
        if workflow is None or version_of(workflow) != left.version:
            return None
        times = left.touched + 1
        changed = self._runs.patch(name, touching(workflow, times))
        if changed is None:
            return None
        say(f"{name}: is touched, as nothing came of what it was told")
        if times == TIMES:
            return None
        return _Left(version_of(changed), times, self._clock() + FIRST_SECONDS * 2**times)
