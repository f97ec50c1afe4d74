"""The model that answers, and how a newer one takes its place.

A newer model is loaded, checked and warmed up in a thread beside the one that answers, and then
put in its place by one assignment: a request took hold of one model and is answered by it to the
end. A bundle that cannot be loaded is refused, and the old one goes on (threats: A1, V7, V9).

While a bundle is rolled out, the candidate is held beside it (:mod:`seatrial.server.candidate`). It is loaded
in the same way; one that cannot be loaded fails whatever it is asked, and so the roll-out's guards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from seatrial.bundle import TrustRoot
from seatrial.errors import SeatrialError
from seatrial.feedback.log import FeedbackLog
from seatrial.promotion import Stage, read_pointer
from seatrial.server.candidate import SHARES, Candidate, Counts
from seatrial.server.learning import Learned
from seatrial.server.model import Change, ServedModel, load_model, table_versions
from seatrial.workspace import Workspace

RETRY_SECONDS = 5.0
_log = logging.getLogger("seatrial.server")


@dataclass(frozen=True)
class Refusal:
    """A bundle that was not taken.

    Attributes:
        digest: Its digest.
        reason: Why.
        at: When, ISO 8601.
    """

    digest: str
    reason: str
    at: str


class ModelHolder:
    """Holds the model that answers, and follows the environment's pointer.

    Args:
        workspace: Where pointer, bundles and tables lie.
        trust: The keys that are trusted.
        model: The model that answers first.
        environment: The environment whose pointer is followed; None: the bundle stays.
        log: Where a candidate's comparisons are written; None: nowhere.
        predictor: Which predictor of a SeldonDeployment this server is of, ``main`` or ``candidate``, where a mesh
            splits the requests of a roll-out; empty: the server splits them itself.
    """

    def __init__(
        self,
        workspace: Workspace,
        trust: TrustRoot,
        model: ServedModel,
        environment: str | None,
        log: FeedbackLog | None = None,
        *,
        predictor: str = "",
    ) -> None:
        self.current = model
        self.candidate: Candidate | None = None
        self.counts = Counts()
        self.name = model.bundle.manifest.model
        self.learned = Learned()
        self.refusal: Refusal | None = None
        self.copies = False
        """Whether what is asked are copies, by a mesh, of requests that others answer: nobody gets these answers."""
        self._predictor = predictor
        self._workspace = workspace
        self._trust = trust
        self._environment = environment
        self._log = log
        self._seen_versions = model.versions
        self._retry_at = 0.0
        self._retry_candidate_at = 0.0

    async def follow(self, every: float) -> None:
        """Look for a newer bundle or newer tables every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.look()
            except SeatrialError as error:
                _log.warning("The environment could not be looked at: %s", error)

    async def look(self) -> bool:
        """Look once for a newer bundle or newer tables; return whether a newer model answers now.

        Raises:
            StoreError: if the store fails; the model that answers goes on.
        """
        digest, versions, stage = await asyncio.to_thread(self._wanted)
        replaced = self._must_replace(digest, versions) and await self._replace(digest)
        await self._try(stage, anew=replaced)
        return replaced

    def stop(self) -> None:
        """Let go of the candidate, and wait until it is done."""
        candidate, self.candidate = self.candidate, None
        if candidate is not None:
            candidate.stop()
            candidate.join()

    def _must_replace(self, digest: str, versions: dict[str, int]) -> bool:
        if digest == self.current.digest:
            self.refusal = None
            # Tables change one after the other: wait until they rest for one look.
            rest, self._seen_versions = versions == self._seen_versions, versions
            return versions != self.current.versions and rest
        waits = self.refusal and self.refusal.digest == digest and time.monotonic() < self._retry_at
        return not waits

    def _wanted(self) -> tuple[str, dict[str, int], Stage | None]:
        versions = table_versions(self._workspace, self.name, list(self.current.versions))
        if self._environment is None:
            return self.current.digest, versions, None
        pointer = read_pointer(self._workspace, self._environment, self.name)
        return pointer.digest or self.current.digest, versions, pointer.stage

    async def _replace(self, digest: str) -> bool:
        changes = self.learned.snapshot()
        try:
            model = await asyncio.to_thread(self._make, digest, changes)
        except SeatrialError as error:
            self.learned.give_up()
            self._refuse(digest, str(error))
            return False
        # No await from here on: nobody answers, and no outcome arrives, between the two models.
        self.learned.catch_up(model)
        before, self.current = self.current, model
        self.refusal = None
        if before.digest != digest:
            _log.info("Serving bundle %s instead of %s.", digest[:12], before.digest[:12])
        else:
            _log.info("Serving with newer tables: %s.", model.versions)
        return True

    async def _try(self, stage: Stage | None, *, anew: bool) -> None:
        """Try the candidate of a stage.

        Args:
            stage: The stage; None: there is no candidate any more.
            anew: Whether to load a candidate that is there already: the tables have changed.
        """
        if stage is not None:  # After the last step, copies come until the mesh has heard of it.
            self.copies = self._predictor == "candidate" and stage.weight == 0
        before = self.candidate
        if before is not None and stage is not None and before.stage.digest == stage.digest and not anew:
            loaded = before.model is not None
            if loaded or time.monotonic() < self._retry_candidate_at:
                before.stage = stage
                return
        if stage is None:
            self.candidate = None
        else:
            self.candidate = await self._load_candidate(stage)
            if before is None or before.stage.digest != stage.digest:
                _log.info("Trying bundle %s beside %s.", stage.digest[:12], self.current.digest[:12])
        if before is not None:
            before.stop()

    async def _load_candidate(self, stage: Stage) -> Candidate:
        changes, why = self.learned.snapshot(), ""
        model: ServedModel | None = None
        try:
            model = await asyncio.to_thread(self._make, stage.digest, changes)
        except SeatrialError as error:
            why = str(error)
        if model is not None and model.schema.inputs != self.current.schema.inputs:
            model, why = None, "It has other inputs than the bundle that serves."
        if model is None:
            self._retry_candidate_at = time.monotonic() + RETRY_SECONDS
            _log.error("The candidate %s cannot be tried: %s", stage.digest[:12], why)
        candidate = Candidate(
            stage,
            model,
            why=why,
            log=self._log,
            counts=self.counts,
            maximum_bytes=self.current.terms.maximum_bytes,
            share=SHARES.get(self._predictor),
        )
        candidate.learn(self.learned.since())
        return candidate

    def _make(self, digest: str, changes: list[Change]) -> ServedModel:
        model = load_model(self._workspace, self.name, digest, self._trust, like=self.current)
        model.count(changes)
        return model

    def _refuse(self, digest: str, reason: str) -> None:
        if self.refusal is None or self.refusal.digest != digest or self.refusal.reason != reason:
            _log.error("Refused bundle %s; %s goes on: %s", digest[:12], self.current.digest[:12], reason)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.refusal = Refusal(digest, reason, at)
        self._retry_at = time.monotonic() + RETRY_SECONDS
