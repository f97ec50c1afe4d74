"""A run that Argo's controller does not look at after a change of ours is touched, and no other."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seatrial.errors import ClusterError
from seatrial.kubeflow_driver import reminders
from seatrial.kubeflow_driver.reminders import TIMES, Reminders
from seatrial.kubeflow_driver.service import DriverService
from seatrial.kubeflow_driver.workflows import DRIVERS, TOUCHED

NAME = "training-abc"
Object = dict[str, Any]


class OneRun:
    """A run that changes when somebody changes it, and nobody works on."""

    def __init__(self) -> None:
        metadata = {"name": NAME, "uid": "0f0f", "resourceVersion": "1", "annotations": {DRIVERS: "{}"}}
        self.run: Object = {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
        self.touched_at: list[float] = []
        self.now, self.away = 0.0, False

    def clock(self) -> float:
        """What time it is."""
        return self.now

    def changes(self) -> Iterator[tuple[Object, bool]]:
        """Tell of it once."""
        yield copy.deepcopy(self.run), False

    def get(self, name: str) -> Object | None:
        """Return it, unless Kubernetes is away."""
        assert name == NAME
        if self.away:
            raise ClusterError("Kubernetes does not show it.")
        return copy.deepcopy(self.run)

    def patch(self, name: str, change: Object) -> Object | None:
        """Touch it, if it is as it was read."""
        assert name == NAME
        metadata = self.run["metadata"]
        if change["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            return None
        assert set(change) == {"metadata"}
        metadata["annotations"] |= change["metadata"]["annotations"]
        self.touched_at.append(self.now)
        return self.works()

    def works(self) -> Object:
        """Let somebody change it."""
        metadata = self.run["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return copy.deepcopy(self.run)


@pytest.fixture
def one() -> OneRun:
    """A run that was let go."""
    return OneRun()


def passes(one: OneRun, seen: Reminders, seconds: int) -> None:
    """Let time pass, with a look each second."""
    for _ in range(seconds):
        one.now += 1
        seen.look()


def test_a_run_that_stays_as_it_was_left_is_touched_less_and_less_often(one: OneRun) -> None:
    """Twice as long is waited after each time, and no more than some minutes."""
    seen = Reminders(one, one.clock)
    seen.left(one.run)
    passes(one, seen, 600)
    assert one.touched_at == [2, 6, 14, 30, 62]
    assert one.run["metadata"]["annotations"] == {DRIVERS: "{}", TOUCHED: str(TIMES)}


@pytest.mark.parametrize("touched", [0, 1])
def test_a_run_that_goes_on_is_left_alone(one: OneRun, touched: int) -> None:
    """What changed since we left it, or since it was touched, Argo knows of."""
    seen = Reminders(one, one.clock)
    seen.left(one.run)
    passes(one, seen, 3 * touched)
    one.works()
    passes(one, seen, 600)
    assert len(one.touched_at) == touched


def test_a_run_that_is_changed_again_counts_from_then(one: OneRun) -> None:
    """The second change may be overlooked like the first."""
    seen = Reminders(one, one.clock)
    seen.left(one.run)
    passes(one, seen, 1)
    seen.left(one.works())
    passes(one, seen, 600)
    assert one.touched_at == [3, 7, 15, 31, 63]


def test_what_is_due_stays_due_while_kubernetes_is_away(one: OneRun) -> None:
    """It is touched when Kubernetes answers again."""
    seen = Reminders(one, one.clock)
    seen.left(one.run)
    one.away, one.now = True, 10.0
    with pytest.raises(ClusterError):
        seen.look()
    one.away = False
    passes(one, seen, 1)
    assert one.touched_at == [11]


def test_a_new_service_touches_what_it_finds_at_work_once(
    one: OneRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it may have ended right after a change that was overlooked; however often it is told of it."""
    monkeypatch.setattr(reminders, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(reminders, "LOOK_SECONDS", 0.01)
    service = DriverService(one, tmp_path / "driver", at_once=1, seconds=1)
    for _ in range(3):
        service.look()
    while not one.touched_at:
        time.sleep(0.01)
    time.sleep(0.1)
    service.close()
    assert len(one.touched_at) == 1
