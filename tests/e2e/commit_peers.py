"""Peers of storage commitment over pynetdicom: an archive that commits, and a modality that asks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import peers
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import _STORAGE_CLASSES

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


def references(ds: Dataset, keyword: str = "ReferencedSOPSequence") -> list[tuple[str, str]]:
    """(SOP Class, SOP Instance) of each item of a sequence."""
    return [
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in ds.get(keyword, [])
    ]


def failures(ds: Dataset) -> dict[str, int]:
    """SOP Instance → Failure Reason."""
    return {
        str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
        for item in ds.get("FailedSOPSequence", [])
    }


def dialogue(transaction: str, done: list[tuple[str, str]], failed: dict[tuple[str, str], int]) -> Dataset:
    """The dataset of a request or a report (PS3.4 Tables J.3-1 and J.3-2)."""

    def item(reference: tuple[str, str], reason: int = 0) -> Dataset:
        made = Dataset()
        made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = reference
        if reason:
            made.FailureReason = reason
        return made

    ds = Dataset()
    ds.TransactionUID = transaction
    if done:
        ds.ReferencedSOPSequence = [item(reference) for reference in done]
    if failed:
        ds.FailedSOPSequence = [item(reference, reason) for reference, reason in failed.items()]
    return ds


@dataclass
class Archive:
    """A storage SCP that commits: on the same association, on a new one, or never."""

    port: int
    node_port: int
    way: str = "new"
    """same | new | never | refuse."""
    fails: Callable[[str, int], int] = lambda _uid, _nth: 0
    """SOP Instance UID, how often it was asked about before → Failure Reason, 0 for success."""
    mentions: Callable[[str], bool] = lambda _uid: True
    """Whether a report names an object at all."""
    ae_title: str = "ARCHIVE"
    stored: list[str] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses of the N-EVENT-REPORT-RSPs."""
    events: list[str] = field(default_factory=list)
    """Calling AE titles of those who asked."""

    def begin(self, way: str) -> None:
        """Forget what was, and answer in another way from now on."""
        self.way, self.fails, self.mentions = way, lambda _uid, _nth: 0, lambda _uid: True
        for known in (self.stored, self.asked, self.answers, self.events):
            known.clear()

    @property
    def transactions(self) -> list[str]:
        """Transaction UIDs in the order they came."""
        return [str(ds.TransactionUID) for ds in self.asked]

    @contextlib.contextmanager
    def open(self) -> Iterator[Archive]:
        """Answer as long as the block lasts."""
        ae = AE(self.ae_title)
        for context in _STORAGE_CLASSES.values():
            ae.add_supported_context(context, _SYNTAXES)
        ae.add_supported_context("1.2.840.10008.1.1")
        ae.add_supported_context(PUSH_MODEL, _SYNTAXES[1:])
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()

    def _store(self, happened: evt.Event) -> int:
        self.stored.append(str(happened.request.AffectedSOPInstanceUID))
        return 0x0000

    def _action(self, happened: evt.Event) -> tuple[int, None]:
        request = happened.action_information
        before = [uid for ds in self.asked for _, uid in references(ds)]
        self.asked.append(request)
        self.events.append(str(happened.assoc.requestor.ae_title))
        if self.way == "refuse":
            return 0x0110, None
        if self.way != "never":
            named = [r for r in references(request) if self.mentions(r[1])]
            reasons = {r: self.fails(r[1], before.count(r[1])) for r in named}
            report = dialogue(
                str(request.TransactionUID),
                [r for r in named if not reasons[r]],
                {r: reason for r, reason in reasons.items() if reason},
            )
            send = self._on_same if self.way == "same" else self._on_new
            threading.Thread(target=send, args=(happened.assoc, report), daemon=True).start()
        return 0x0000, None

    def _on_same(self, assoc: Any, report: Dataset) -> None:
        time.sleep(0.2)
        peers.keep_answers(assoc)
        self._report(assoc, report)

    def _on_new(self, _assoc: Any, report: Dataset) -> None:
        self.report(report)

    def report(self, report: Dataset) -> None:
        """N-EVENT-REPORT on an association of its own, as SCP."""
        ae = AE(self.ae_title)
        ae.add_requested_context(PUSH_MODEL)
        role = build_role(PUSH_MODEL, scp_role=True)
        assoc = ae.associate("127.0.0.1", self.node_port, ae_title="PACSNODE", ext_neg=[role])
        peers.keep_answers(assoc)
        if assoc.is_established:
            self._report(assoc, report)
            assoc.release()

    def _report(self, assoc: Any, report: Dataset) -> None:
        kind = 2 if "FailedSOPSequence" in report else 1
        status, _ = assoc.send_n_event_report(report, kind, PUSH_MODEL, INSTANCE)
        self.answers.append(int(status.Status) if "Status" in status else -1)


@dataclass
class Asker:
    """A modality that asks the node to commit, and hears of it at its own port."""

    port: int
    node_port: int
    ae_title: str = "MR01"
    heard: list[tuple[int, Dataset]] = field(default_factory=list)
    """Event Type ID and dataset of each report."""

    def ask(self, transaction: str, named: list[tuple[str, str]]) -> int | None:
        """N-ACTION; its status, None where the node does not accept the SOP class."""
        ae = AE(self.ae_title)
        ae.requested_contexts = [build_context(PUSH_MODEL)]
        assoc = ae.associate("127.0.0.1", self.node_port, ae_title="PACSNODE")
        peers.keep_answers(assoc)
        if not assoc.is_established:
            return None
        status, _ = assoc.send_n_action(dialogue(transaction, named, {}), 1, PUSH_MODEL, INSTANCE)
        assoc.release()
        return int(status.Status)

    @contextlib.contextmanager
    def open(self) -> Iterator[Asker]:
        """Listen as long as the block lasts."""
        ae = AE(self.ae_title)
        ae.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._event)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()

    def _event(self, happened: evt.Event) -> tuple[int, None]:
        self.heard.append((happened.event_type, happened.event_information))
        return 0x0000, None

    def of(self, transaction: str) -> list[tuple[int, Dataset]]:
        """The reports on one request."""
        return [one for one in self.heard if one[1].TransactionUID == transaction]
