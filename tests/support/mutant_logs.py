"""Feedback logs that are wrong on purpose: a test that none of them fails is worth nothing (threats: Z10)."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from typing import Any

from seatrial.errors import FeedbackError
from seatrial.feedback import log as log_module
from seatrial.feedback.log import DURABLE, FeedbackLog, Segment, Terms


class AnswersFirst(FeedbackLog):
    """Confirms a record, and writes it then."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.looked = threading.Event()
        super().__init__(*arguments, **named)

    def _write(self, works: Any) -> None:
        log_module._complete(works, None)
        # Somebody has looked at the disk meanwhile: so the test does not depend on who is faster.
        self.looked.wait(10)
        self.looked.clear()
        done = [log_module._Work(work.kind, work.payload, lambda _: None, work.terms) for work in works]
        super()._write(done)


class _Deaf:
    """The module ``os``, with calls that do nothing."""

    def __init__(self, real: Any, *deaf: str) -> None:
        self._real = real
        self._deaf = deaf

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name in self._deaf else getattr(self._real, name)


def _without(*deaf: str) -> type[FeedbackLog]:
    class Without(FeedbackLog):
        def _append(self, *arguments: Any, **named: Any) -> None:
            real = log_module.os
            log_module.os = _Deaf(real, *deaf)  # type: ignore[assignment]
            try:
                super()._append(*arguments, **named)
            finally:
                log_module.os = real  # type: ignore[assignment]

        def _begin(self) -> Any:
            real = log_module.os
            log_module.os = _Deaf(real, *deaf)  # type: ignore[assignment]
            try:
                return super()._begin()
            finally:
                log_module.os = real  # type: ignore[assignment]

    return Without


NeverSyncs = _without("fdatasync")
NeverSyncsItsFolder = _without("fsync")


class TrustsASecondSync(FeedbackLog):
    """Asks again where a sync failed; by then the kernel has dropped what the first one should have kept."""

    def _append(self, file: Any, content: bytes, records: int, sync_within: float | None = None) -> None:
        real = log_module.os

        class Again(_Deaf):
            def fdatasync(self, descriptor: int) -> None:
                try:
                    real.fdatasync(descriptor)
                except OSError:
                    real.fdatasync(descriptor)

        log_module.os = Again(real)  # type: ignore[assignment]
        try:
            super()._append(file, content, records, sync_within)
        finally:
            log_module.os = real  # type: ignore[assignment]


class NeverSyncsLate(FeedbackLog):
    """Forgets the sync that it owes after an interval."""

    def _sync_late(self) -> None:
        self._sync_at = None


class BeginsAnewInTheSameFile(FeedbackLog):
    """Gives its first segment the name that an earlier opening's had, and empties it."""

    def _begin(self) -> Any:
        self._epoch = "01a209e4-2232-7373-8b2c-64a6e4000000"
        real = log_module.os

        class Emptying(_Deaf):
            def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
                changed = flags & ~os.O_EXCL | os.O_TRUNC if flags & os.O_CREAT else flags
                return int(real.open(path, changed, mode))

        log_module.os = Emptying(real)  # type: ignore[assignment]
        try:
            return super()._begin()
        finally:
            log_module.os = real  # type: ignore[assignment]


class DropsWhenFull(FeedbackLog):
    """Confirms what it does not take."""

    def append(self, payload: bytes, terms: Terms = DURABLE) -> Future[None]:
        try:
            return super().append(payload, terms)
        except FeedbackError:
            done: Future[None] = Future()
            done.set_result(None)
            return done


class ListsWhatItWrites(FeedbackLog):
    """Gives the shipper the segment that is still being written."""

    def seal(self) -> None:
        pass

    def segments(self) -> list[Segment]:
        found = (log_module._segment(path) for path in self.folder.iterdir())
        return sorted(segment for segment in found if segment is not None)


class KeepsARefusedRecord(FeedbackLog):
    """Leaves a record in the file that it has refused, because its sync failed."""

    def _abandon(self) -> None:
        file, self._open = self._open, None
        if file is not None:
            self._finish(file)
