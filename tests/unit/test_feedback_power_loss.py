"""What the feedback log has confirmed survives a loss of power; logs that are wrong on purpose are caught (F3, Z10)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from seatrial.errors import FeedbackError
from seatrial.feedback import log as log_module
from seatrial.feedback.log import FeedbackLog, Terms
from seatrial.feedback.segments import scan
from support import mutant_logs
from support.power_loss import Disk, Kept

RECORDS = 24
SEED = 20130101


def found_in(folder: Path) -> list[bytes]:
    """Return the records that a reader finds, seals left out."""
    scans = [scan(path.read_bytes()) for path in sorted(folder.glob("*.segment"))]
    return [payload for one in scans for payload in one.payloads if b"sealed" not in payload]


@dataclass
class Trial:
    """A log on a disk that loses what is not synced, and what became of its records."""

    folder: Path
    disk: Disk = field(default_factory=Disk)
    confirmed: set[bytes] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    crashes: int = 0

    def append(self, log: FeedbackLog, payload: bytes, terms: Terms = log_module.DURABLE) -> None:
        """Write a record and look at the disk the moment it is confirmed."""
        try:
            log.append(payload, terms).result(timeout=30)
        except FeedbackError:
            self.refused.add(payload)
        else:
            self.confirmed.add(payload)
            if terms.sync_within is None:
                self.look()
        if isinstance(log, mutant_logs.AnswersFirst):
            log.looked.set()

    def look(self) -> None:
        """Cut the power in each way, and note what of the confirmed is not found, or of the refused is."""
        for kept in get_args(Kept):
            self.crashes += 1
            target = self.folder.parent / f"crash-{self.crashes}"
            self.disk.crash(target, kept, random.Random(SEED + self.crashes))
            found = found_in(target)
            lost = self.confirmed - set(found)
            self.wrong += [f"{len(lost)} lost, {kept} kept of what was not synced"] if lost else []
            if self.refused & set(found) and kept == "nothing":
                self.wrong.append("what was refused is there")
            if len(found) != len(set(found)):
                self.wrong.append("a record is there twice")


def payloads(count: int) -> list[bytes]:
    """Return records of many sizes, some of several sectors."""
    chance = random.Random(SEED)
    return [b'{"n":%d,"x":"%s"}' % (n, b"x" * chance.choice([1, 100, 600, 3_000])) for n in range(count)]


def write_and_seal(log_class: type[FeedbackLog], trial: Trial) -> None:
    """Write, now and then seal, and begin anew in the middle."""
    for opening in range(2):
        log = log_class(trial.folder, segment_bytes=8_000)
        for number, payload in enumerate(payloads(RECORDS)):
            trial.append(log, payload.replace(b'"n":', b'"o%d":' % opening))
            if number % 7 == 6:
                log.seal()
                trial.look()
        if isinstance(log, mutant_logs.AnswersFirst):
            log.looked.set()
        log.close()
        trial.look()


def fail_to_sync(log_class: type[FeedbackLog], trial: Trial) -> None:
    """Let some syncs fail, as a disk with a bad sector does."""
    log = log_class(trial.folder)
    for number, payload in enumerate(payloads(RECORDS)):
        trial.disk.fail_sync = int(number % 5 == 3)
        trial.append(log, payload)
    trial.disk.fail_sync = 0
    log.close()
    trial.look()
    # Without a loss of power the shipper reads the files as they are.
    if trial.refused & set(found_in(trial.folder)):
        trial.wrong.append("what was refused is there")


def confirm_early(log_class: type[FeedbackLog], trial: Trial) -> None:
    """Confirm before the sync, as an interval allows, and look when the interval is long over."""
    log = log_class(trial.folder)
    for payload in payloads(5):
        trial.append(log, payload, Terms(sync_within=0.005))
    deadline = time.monotonic() + 30
    while log._sync_at is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    # The log's thread takes this one after it has done what it owed.
    log.append(b"{}", Terms(sync_within=60.0)).result(timeout=30)
    trial.look()
    log.close()


def overfill(log_class: type[FeedbackLog], trial: Trial) -> None:
    """Bring more than may wait while the disk is slow, and look when all that was confirmed is done."""
    go = threading.Event()
    real = trial.disk.fdatasync

    def slow(descriptor: int) -> None:
        go.wait(30)
        real(descriptor)

    trial.disk.fdatasync = slow  # type: ignore[method-assign]
    log = log_class(trial.folder, waiting=4)
    taken = {}
    for payload in payloads(RECORDS):
        with suppress(FeedbackError):
            taken[payload] = log.append(payload)
    go.set()
    for payload, done in taken.items():
        done.result(timeout=30)
        trial.confirmed.add(payload)
    trial.look()
    log.close()


Story = Callable[[type[FeedbackLog], Trial], None]
STORIES: dict[str, Story] = {
    "write and seal": write_and_seal,
    "fail to sync": fail_to_sync,
    "confirm early": confirm_early,
    "overfill": overfill,
}


def run(story: Story, log_class: type[FeedbackLog], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Run a story on a disk that loses what is not synced."""
    trial = Trial(folder / "log")
    monkeypatch.setattr(log_module, "os", trial.disk)
    story(log_class, trial)
    return trial


@pytest.mark.parametrize("story", STORIES)
def test_what_was_confirmed_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    """Whatever the disk kept of what it was not asked to keep: each confirmed record is found, once (F2, F3)."""
    trial = run(STORIES[story], FeedbackLog, tmp_path, monkeypatch)
    assert trial.wrong == []
    assert len(trial.confirmed) >= 4
    assert trial.crashes >= 3


def test_torn_records_are_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that a loss of power cut in the middle do occur here, and are neither read nor harm others (F4)."""
    disk = Disk()
    monkeypatch.setattr(log_module, "os", disk)
    log = FeedbackLog(tmp_path / "log")
    early = Terms(sync_within=60.0)
    written = payloads(RECORDS)
    log.append(written[0]).result(timeout=30)
    for payload in written[1:]:
        log.append(payload, early).result(timeout=30)
    tails = 0
    for number in range(30):
        target = tmp_path / f"crash-{number}"
        disk.crash(target, "sectors", random.Random(SEED + number))
        found = found_in(target)
        assert set(found) <= set(written)
        assert written[0] in found
        tails += len(found) < len(written)
    log.close()
    assert tails >= 20
    assert disk.torn >= 50


MUTANTS = {
    "answers first": (mutant_logs.AnswersFirst, "write and seal"),
    "never syncs": (mutant_logs.NeverSyncs, "write and seal"),
    "never syncs its folder": (mutant_logs.NeverSyncsItsFolder, "write and seal"),
    "begins anew in the same file": (mutant_logs.BeginsAnewInTheSameFile, "write and seal"),
    "trusts a second sync": (mutant_logs.TrustsASecondSync, "fail to sync"),
    "keeps a refused record": (mutant_logs.KeepsARefusedRecord, "fail to sync"),
    "never syncs late": (mutant_logs.NeverSyncsLate, "confirm early"),
    "drops when full": (mutant_logs.DropsWhenFull, "overfill"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_log_that_is_wrong_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    """Each log that breaks the promise fails the very story that the right one passes (Z10)."""
    log_class, story = MUTANTS[mutant]
    assert run(STORIES[story], log_class, tmp_path, monkeypatch).wrong
