"""Watches the runs of a namespace, lets them go, and answers each driver that they wait for."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from seatrial.cluster_setup.entry import say
from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.driving import PATCH, Door, drive
from seatrial.kubeflow_driver.launcher import with_own_launcher
from seatrial.kubeflow_driver.reminders import Changed, Reminders
from seatrial.kubeflow_driver.workflows import (
    Object,
    Waiting,
    answering,
    is_held,
    letting_go,
    waiting_in,
    was_let_go,
)

_ODD = (LookupError, TypeError, ValueError, AttributeError)
"""What a workflow raises that is not as Argo writes it."""
PAUSE_SECONDS, CLOSING_SECONDS = 1.0, 10.0


class Runs(Changed, Protocol):
    """The workflows of a namespace that are not over."""

    def changes(self) -> Iterator[tuple[Object, bool]]:
        """Yield each workflow as it is, and again when it changes; True beside one that is gone or over.

        It ends now and then, and is called again.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """


class DriverService:
    """Decides for all runs of a namespace.

    Args:
        runs: The runs.
        driver: The program of Kubeflow Pipelines.
        at_once: How many drivers may work at the same time.
        seconds: How long one may take.
        launchers: Where Kubeflow's launcher is in an image that has it, by the image's reference.
        door: Where drivers shall reach the API of Kubeflow Pipelines; None: where they are told to.
    """

    def __init__(
        self,
        runs: Runs,
        driver: Path,
        *,
        at_once: int,
        seconds: float,
        launchers: Mapping[str, str] = MappingProxyType({}),
        door: Door | None = None,
    ) -> None:
        self._runs, self._driver, self._seconds, self._launchers = runs, driver, seconds, launchers
        self._door = door
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="driver")
        self._taken: dict[str, set[Hashable]] = {}
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._reminders = Reminders(runs)
        threading.Thread(target=self._reminders.keep_looking, name="reminders", daemon=True).start()

    def look(self) -> None:
        """Take what the runs wait for, until the watch ends.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """
        for workflow, over in self._runs.changes():
            if over:
                self._forget(workflow["metadata"]["uid"])
            else:
                self.consider(workflow)

    def consider(self, workflow: Object) -> None:
        """Take what a run waits for, if nobody did."""
        uid, name = workflow["metadata"]["uid"], workflow["metadata"]["name"]
        with self._lock:
            known = uid in self._taken
            self._taken.setdefault(uid, set())
        if was_let_go(workflow) and not known:
            self._reminders.found(workflow)
        if is_held(workflow):
            self._take(uid, "let go", partial(self._let_go, name))
        try:
            found = waiting_in(workflow)
        except _ODD as error:  # One that somebody wrote himself must not stop the others.
            say(f"{name}: cannot be read: {type(error).__name__}: {error}")
            return
        for waiting in found:
            self._take(uid, (waiting.node, waiting.started), partial(self._answer, waiting))

    def close(self) -> None:
        """Wait for what is at work, but for no answer of Kubernetes' that does not come; take nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        timer = threading.Timer(CLOSING_SECONDS, self._ending.set)
        timer.start()
        self._pool.shutdown()
        timer.cancel()
        self._reminders.end()

    def _take(self, uid: str, what: Hashable, work: Callable[[], None]) -> None:
        """Do a work once: an older state of a run may still be told after it was answered."""
        with self._lock:
            taken = self._taken[uid]
            if what in taken:
                return
            taken.add(what)
        self._pool.submit(self._do, uid, what, work)

    def _do(self, uid: str, what: Hashable, work: Callable[[], None]) -> None:
        """Do a work; an error that nobody thought of is told whole, and the work tried again at the next look."""
        try:
            work()
        except Exception:  # noqa: BLE001 -- a run that nobody answers would wait for good, and nobody know why
            say(traceback.format_exc())
            with self._lock:
                self._taken.get(uid, set()).discard(what)

    def _forget(self, uid: str) -> None:
        with self._lock:
            self._taken.pop(uid, None)

    def _let_go(self, name: str) -> None:
        if self._change(name, lambda workflow: letting_go(workflow) if is_held(workflow) else None):
            say(f"{name}: begins")

    def _answer(self, waiting: Waiting) -> None:
        began = time.monotonic()
        outcome = drive(self._driver, waiting, seconds=self._seconds, door=self._door)
        if patch := outcome.values.get(PATCH):
            values = {**outcome.values, PATCH: with_own_launcher(patch, self._launchers)}
            outcome = replace(outcome, values=values)
        took = time.monotonic() - began
        told = self._change(waiting.workflow, lambda workflow: answering(workflow, waiting, outcome))
        how = f"failed: {outcome.failure}" if outcome.failure else "decided"
        if told:
            say(f"{waiting.workflow}: {waiting.node} {how} after {took:.2f} s")

    def _change(self, name: str, change: Callable[[Object], Object | None]) -> bool:
        """Change a run as it is now; False where there is nothing to change any more, or no time to.

        While Kubernetes does not answer it is asked again: what a driver put out shall not be lost.
        """
        while not self._ending.is_set():
            try:
                workflow = self._runs.get(name)
                wanted = change(workflow) if workflow else None
                if wanted is None:
                    return False
                if changed := self._runs.patch(name, wanted):
                    self._reminders.left(changed)
                    return True
            except ClusterError as error:
                say(f"{error} It is asked again.")
                self._ending.wait(PAUSE_SECONDS)
        return False
