"""C-FIND as SCU: what peers count, and what a peer that does not answer as it should costs."""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from query_peers import Handler, destination, finder
from tls_material import LOOPBACK, Papers

from node.child import LineChild
from node.querier import answer
from node.send import find
from node.send.link import Lost
from node.send.protocol import Tls
from node.send.queries import Count, Counted, Limits, answer_from_json, question_from_json, to_json
from node.testing import Grid, Series, sphere_volume, write_ct_series

STUDY, SERIES = "1.2.9", "1.2.9.1"
SHORT = Limits(seconds=3.0, responses=50, response_size=4096)
PATIENT = replace(SHORT, seconds=60.0)


def match(**values: Any) -> Dataset:
    """One match."""
    found = Dataset()
    for keyword, value in {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, **values}.items():
        if value is not None:
            setattr(found, keyword, value)
    return found


def counting(**values: Any) -> Handler:
    """A peer that knows one series."""

    def handler(_: evt.Event) -> Iterator[tuple[int, Any]]:
        yield 0xFF00, match(**values)

    return handler


def test_a_count_at_series_level() -> None:
    """Number of Series Related Instances is what is asked for, at the series level of Study Root."""
    asked: list[Dataset] = []

    def handler(event: evt.Event) -> Iterator[tuple[int, Any]]:
        asked.append(event.identifier)
        yield 0xFF01, match(NumberOfSeriesRelatedInstances="323")

    with finder(handler) as where:
        assert find.count(where, STUDY, SERIES, PATIENT) == 323
    (one,) = asked
    assert (one.QueryRetrieveLevel, one.StudyInstanceUID, one.SeriesInstanceUID) == ("SERIES", STUDY, SERIES)


@pytest.mark.parametrize("number", [None, "", "0"])
def test_a_peer_that_does_not_count_is_asked_for_the_images(number: str | None) -> None:
    """Without a number at series level, the different SOP Instance UIDs at image level are counted."""

    def handler(event: evt.Event) -> Iterator[tuple[int, Any]]:
        if event.identifier.QueryRetrieveLevel == "SERIES":
            yield 0xFF00, match(NumberOfSeriesRelatedInstances=number)
            return
        for n in range(7):
            yield 0xFF00, match(SOPInstanceUID=f"1.2.3.{n % 5}")

    with finder(handler) as where:
        assert find.count(where, STUDY, SERIES, PATIENT) == 5


def endless(event: evt.Event) -> Iterator[tuple[int, Any]]:
    """Pending for ever, whatever is cancelled."""
    while event.assoc.is_established:
        yield 0xFF00, match(NumberOfSeriesRelatedInstances=3)


def slow(event: evt.Event) -> Iterator[tuple[int, Any]]:
    """Pending now and then, for ever."""
    while event.assoc.is_established:
        time.sleep(0.3)
        yield 0xFF00, match(NumberOfSeriesRelatedInstances=3)


def silent(event: evt.Event) -> Iterator[tuple[int, Any]]:
    """Nothing."""
    time.sleep(5)
    yield 0x0000, None


def failing(_: evt.Event) -> Iterator[tuple[int, Any]]:
    """A failure."""
    yield 0xC000, None


def leaving(event: evt.Event) -> Iterator[tuple[int, Any]]:
    """A-ABORT in between."""
    yield 0xFF00, match(NumberOfSeriesRelatedInstances=3)
    event.assoc.abort()


def nothing(_: evt.Event) -> Iterator[tuple[int, Any]]:
    """No match."""
    yield from ()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (nothing, "does not know the series"),
        (endless, "with more than 50 matches"),
        (slow, "did not come to an end in time"),
        (silent, "did not answer within 1.5 s"),
        (failing, r"C-FIND with C000 \(it cannot process that\)"),
        (leaving, "aborted the association"),
        (counting(SeriesInstanceUID="1.2.9.2", NumberOfSeriesRelatedInstances=3), "one series with another"),
        (counting(StudyInstanceUID="1.2.8", NumberOfSeriesRelatedInstances=3), "one series with another"),
        (counting(SeriesDescription="x" * 5000), "with a match of 5"),
        (counting(NumberOfSeriesRelatedInstances=2**31 - 1), "does not say how many"),
        (counting(NumberOfSeriesRelatedInstances="-5"), "does not say how many"),
    ],
    ids=[
        "none",
        "endless",
        "slow",
        "silent",
        "failing",
        "abort",
        "series",
        "study",
        "gigantic",
        "absurd",
        "minus",
    ],
)
def test_a_hostile_answer_is_words_in_time(handler: Handler, words: str) -> None:
    """Endless, slow, gigantic or foreign answers end within the limits, with what the peer did."""
    began = time.monotonic()
    with finder(handler) as where, pytest.raises(Lost, match=words):
        find.count(where, STUDY, SERIES, SHORT)
    assert time.monotonic() - began < SHORT.seconds + 6.0


def test_a_peer_without_study_root() -> None:
    """Who accepts associations but not C-FIND is named with what to look at."""
    with finder(nothing, "1.2.840.10008.1.1") as where, pytest.raises(Lost, match="does not accept C-FIND"):
        find.count(where, STUDY, SERIES, SHORT)


def test_nobody_there() -> None:
    """A peer that is off is words as well, in the querier's answer."""
    port = peers.free_port()
    found = answer(Count(7, destination(port), STUDY, SERIES), SHORT)
    assert (found.id, found.objects) == (7, None)
    assert found.error.startswith(f"CT01 at 127.0.0.1:{port} refused the connection")


def test_what_is_said_over_the_pipe_is_what_is_read() -> None:
    """Questions and answers survive being lines."""
    asked = Count(7, destination(4242), STUDY, SERIES)
    assert question_from_json(to_json(asked)) == asked
    for said in (Counted(7, 323), Counted(8, None, "CT01 did not answer")):
        assert answer_from_json(to_json(said)) == said


def heard(child: LineChild, count: int, within: float = 20.0) -> list[Any]:
    """The next answers of a querier."""
    found: list[Any] = []
    until = time.monotonic() + within
    while len(found) < count:
        assert time.monotonic() < until, "the querier did not answer"
        found += [answer_from_json(line) for line in child.lines()[0]]
        time.sleep(0.01)
    return found


def test_one_that_hangs_holds_up_no_other() -> None:
    """The querier answers for a quick peer while a silent one keeps it waiting; killed, it is started again."""
    child = LineChild("node.querier")
    quick = counting(NumberOfSeriesRelatedInstances=5)
    with finder(silent) as hanging, finder(quick) as where:
        assert child.ensure()
        for n in range(4):
            child.say(to_json(Count(n, hanging, STUDY, SERIES)))
        child.say(to_json(Count(9, where, STUDY, SERIES)))
        assert heard(child, 1) == [Counted(9, 5)]
        assert child.process is not None
        os.kill(child.process.pid, signal.SIGKILL)
        while child.lines()[1]:
            time.sleep(0.01)
        while not child.ensure():
            time.sleep(0.01)
        child.say(to_json(Count(10, where, STUDY, SERIES)))
        assert heard(child, 1) == [Counted(10, 5)]
    child.kill()


def test_orthanc_counts(tmp_path: Path) -> None:
    """A real PACS: the number it holds, more when it gets more, and none of a series it does not know."""
    volume = sphere_volume(Grid((4, 16, 16), (3.0, 2.0, 2.0)), radius=9.0, inside=40.0)
    files = write_ct_series(tmp_path / "ct", volume, series=Series("counted"))
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    with peers.orthanc(tmp_path / "orthanc", {"node": ("PACSNODE", "127.0.0.1", 11112)}) as pacs:
        where = destination(pacs.port, ae_title="ORTHANC")
        with pytest.raises(Lost, match="does not know the series"):
            find.count(where, first.StudyInstanceUID, first.SeriesInstanceUID, SHORT)
        for number, path in enumerate(files, start=1):
            pacs.put(path)
            assert find.count(where, first.StudyInstanceUID, first.SeriesInstanceUID, PATIENT) == number


def test_a_peer_with_tls_is_asked_by_tls(tmp_path: Path) -> None:
    """As for sending: with our certificate to one that is believed; without, the words say what to set."""
    papers = Papers(tmp_path / "tls")
    theirs, ours = papers.pair("pacs", *LOOPBACK), papers.pair("node")
    secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(papers.ca.certificate))
    secured.verify_mode = ssl.CERT_REQUIRED
    secured.load_cert_chain(theirs.certificate, theirs.key)
    tls = Tls(str(papers.ca.certificate), str(ours.certificate), str(ours.key))
    with finder(counting(NumberOfSeriesRelatedInstances=7), secured=secured, tls=tls) as where:
        assert find.count(where, STUDY, SERIES, PATIENT) == 7
        with pytest.raises(Lost, match=r"TLS|certificate"):
            find.count(replace(where, tls=Tls(str(papers.ca.certificate))), STUDY, SERIES, SHORT)
