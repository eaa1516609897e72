"""Storage commitment on the wire when we call: N-ACTION as SCU, N-EVENT-REPORT as SCP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from peers import keep_answers
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from sending_peers import SHORT, Wire, destination, free_port, scripted
from test_send_process import sender

from node.commitment import Dialogue, Reference
from node.send.commitment import ask, report
from node.send.protocol import Ask, Asked, Destination, Echo, Echoed, Report, Reported, to_json

from node.send.protocol import command_from_json, outcome_from_json  # isort: skip

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SAID = Dialogue("2.25.7", (Reference(CT, "1.2.3"), Reference(CT, "1.2.4")))
ANSWER = Dialogue("2.25.7", (Reference(CT, "1.2.3"), Reference(CT, "1.2.4", 0x0112)))


def dataset(transaction: str = "2.25.7") -> Dataset:
    """`ANSWER` as pydicom writes it."""
    done, failed, said = Dataset(), Dataset(), Dataset()
    done.ReferencedSOPClassUID, done.ReferencedSOPInstanceUID = CT, "1.2.3"
    failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID, failed.FailureReason = CT, "1.2.4", 0x0112
    said.TransactionUID, said.ReferencedSOPSequence, said.FailedSOPSequence = transaction, [done], [failed]
    return said


@dataclass
class Scp:
    """A storage commitment SCP, and an SCU that hears reports."""

    act: Callable[[evt.Event], int] = lambda _event: 0x0000
    where: Destination = field(default_factory=lambda: destination(1))
    requests: list[Dataset] = field(default_factory=list)
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    roles: list[tuple[bool, bool]] = field(default_factory=list)

    def say(self, assoc: Any, said: Dataset) -> None:
        """Report on this association."""
        keep_answers(assoc)
        status, _ = assoc.send_n_event_report(said, 2, PUSH_MODEL, INSTANCE)
        self.answered.append(status.Status)

    def later(self, event: evt.Event, said: Dataset, seconds: float = 0.3) -> None:
        """Report on this association after the response."""

        def run() -> None:
            time.sleep(seconds)
            self.say(event.assoc, said)

        threading.Thread(target=run, daemon=True).start()

    def _action(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        return self.act(event), None

    def _event(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.roles += [(r.scu_role, r.scp_role) for r in event.assoc.requestor.role_selection.values()]
        return self.act(event), None

    @contextlib.contextmanager
    def open(self) -> Iterator[Scp]:
        """Answer as long as the block lasts."""
        ae = AE("PACS")
        ae.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_ACTION, self._action), (evt.EVT_N_EVENT_REPORT, self._event)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.where = destination(server.server_address[1])
        try:
            yield self
        finally:
            server.shutdown()


def asked(
    where: Destination, patience: float = 3.0, said: Dialogue = SAID
) -> tuple[str | None, list[Dialogue]]:
    """Ask, and what was heard on the same association."""
    heard: list[Dialogue] = []
    return ask(Ask(1, where, said, patience), heard.append, lambda: False), heard


def test_the_report_comes_after_the_response() -> None:
    """It is taken from the same association, answered with success, and says the same as the SCP wrote."""
    scp = Scp()
    scp.act = lambda event: scp.later(event, dataset()) or 0x0000
    with scp.open():
        assert asked(scp.where) == (None, [ANSWER])
        (request,) = scp.requests
        assert request.TransactionUID == "2.25.7" and len(request.ReferencedSOPSequence) == 2
        time.sleep(0.2)
    assert scp.answered == [0x0000]


def test_the_report_comes_before_the_response() -> None:
    """Some SCPs report first and respond then."""
    scp = Scp()
    scp.act = lambda event: scp.say(event.assoc, dataset()) or 0x0000
    with scp.open():
        assert asked(scp.where) == (None, [ANSWER])
    assert scp.answered == [0x0000]


def test_another_transaction_is_not_taken_here() -> None:
    """A report on another request would be lost with this process: it is answered 0110H, and comes again."""
    scp = Scp()
    scp.act = lambda event: scp.later(event, dataset("2.25.8")) or 0x0000
    with scp.open():
        assert asked(scp.where, 1.0) == (None, [])
    assert scp.answered == [0x0110]


def test_no_report_on_this_association() -> None:
    """The request was taken, and the association is released when patience is over."""
    with Scp().open() as scp:
        began = time.monotonic()
        assert asked(scp.where, 0.5) == (None, [])
        assert time.monotonic() - began >= 0.5


def test_a_peer_that_hangs_up_after_its_response() -> None:
    """The request was taken all the same."""
    scp = Scp()
    scp.act = lambda event: threading.Timer(0.3, event.assoc.abort).start() or 0x0000
    with scp.open():
        assert asked(scp.where) == (None, [])


def test_why_a_request_was_not_taken() -> None:
    """A status, a refused SOP class, a refused connection: a sentence that names the peer and what next."""
    with Scp(lambda _event: 0x0124).open() as scp:
        error, _ = asked(scp.where)
        assert error is not None and error.startswith("PACS at 127.0.0.1:")
        assert "answered N-ACTION with 0124, not authorised" in error
    ae = AE("PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    error, _ = asked(destination(server.server_address[1]))
    server.shutdown()
    assert error is not None and "does not accept Storage Commitment" in error
    error, _ = asked(destination(free_port()))
    assert error is not None and "refused the connection" in error


def test_a_report_of_ours_in_the_role_of_the_scp() -> None:
    """We propose to be SCP and not SCU; ten thousand references arrive, failures with their reasons."""
    many = Dialogue("2.25.9", tuple(Reference(CT, f"1.2.{n}", 0 if n % 2 else 0x0110) for n in range(10_000)))
    with Scp().open() as scp:
        assert report(scp.where, many) is None
        ((kind, said),) = scp.reports
        assert (kind, len(said.ReferencedSOPSequence), len(said.FailedSOPSequence)) == (2, 5000, 5000)
        assert {item.FailureReason for item in said.FailedSOPSequence} == {0x0110}
        assert scp.roles == [(False, True)]
        assert report(scp.where, Dialogue("2.25.9", (Reference(CT, "1.2"),))) is None
        assert scp.reports[1][0] == 1 and "FailedSOPSequence" not in scp.reports[1][1]
    with Scp(lambda _event: 0x0110).open() as scp:
        error = report(scp.where, SAID)
        assert error is not None and "answered N-EVENT-REPORT with 0110, processing failure" in error


@pytest.mark.parametrize(
    "what",
    [b"", b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x09\x01\x03", b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"],
)
def test_a_peer_that_breaks_the_protocol(what: bytes) -> None:
    """Silence, a PDU that contradicts itself, an abort instead of a response: an error in words, in bounded time."""

    def script(wire: Wire) -> None:
        wire.accept()
        wire.message()
        wire.sock.sendall(what)
        wire.pdu()

    with scripted(script) as peer:
        quick = replace(peer, timeouts=replace(SHORT, answer=1.0))
        error, heard = asked(quick)
        assert error is not None and error.startswith("PACS at ") and not heard


def test_commitment_does_not_hold_up_the_lane() -> None:
    """While one association waits for a report, the destination is talked to by others."""
    with Scp().open() as scp, sender() as running:
        running.say(Ask(1, scp.where, SAID, 2.0), Echo(2, scp.where))
        first = running.next()
        assert isinstance(first, Echoed) and first.id == 2
        assert running.next() == Asked(1, None)
        running.say(Report(3, scp.where, SAID))
        assert running.next() == Reported(3, None)


def test_what_conductor_and_sender_say_of_it() -> None:
    """Each message survives its line of JSON."""
    where = destination(104)
    for command in (Ask(1, where, SAID), Report(2, where, ANSWER)):
        assert command_from_json(to_json(command)) == command
    for outcome in (Asked(1, None, ANSWER), Asked(2, "no"), Reported(3, None), Reported(4, "no")):
        assert outcome_from_json(to_json(outcome)) == outcome
