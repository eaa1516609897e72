"""Storage commitment between processes, both roles: what is stored is asked about, and who asks is answered."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from commit_peers import Archive, Asker, dialogue, failures, references
from crash.crash_house import House, Scanner, ball, house
from pydicom.uid import generate_uid

RULES = {
    "all": """
rule: all
purpose: Everything goes to the archive at once.
owner: tests@hospital.example
when: {from: [CT01]}
send:
  - {what: received, to: ARCHIVE}
"""
}
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Place:
    """A node, the archive it sends to, a modality that may ask, and a scanner with a study of its own."""

    site: House
    archive: Archive
    asker: Asker
    scanner: Scanner
    files: list[Path]
    before: int
    """Events that were there already."""

    @property
    def uids(self) -> list[str]:
        """SOP Instance UIDs of the study."""
        return [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in self.files]

    def deliveries(self) -> list[Mapping[str, Any]]:
        """The deliveries of the study."""
        uids = set(self.uids)
        ids = {row["id"] for row in self.site.table("instance") if row["sop_uid"] in uids}
        return [row for row in self.site.table("delivery") if row["instance_id"] in ids]

    def states(self) -> Counter[str]:
        """How many of them are in which state."""
        return Counter(str(row["state"]) for row in self.deliveries())

    def until(self, seconds: float = 30.0, **states: int) -> None:
        """Wait until they are in these states."""
        self.site.wait_for(
            lambda: self.states() == Counter(states), f"{states} (is {self.states()})", seconds
        )

    def events(self, name: str) -> list[str]:
        """Details of the events of a name since the test began."""
        return [str(row["detail"]) for row in self.site.table("event", name=name) if row["id"] > self.before]


@contextlib.contextmanager
def running(folder: Path, within: str = "24 h", **environ: str) -> Iterator[tuple[House, Archive, Asker]]:
    """A node whose archive commits, and a modality that may ask."""
    archive_port, asker_port = peers.free_port(), peers.free_port()
    destinations = f"""
  ARCHIVE: {{ae_title: ARCHIVE, address: 127.0.0.1:{archive_port}, commit: {{within: {within}}}}}
  MR01: {{ae_title: MR01, address: 127.0.0.1:{asker_port}, commit_after: ARCHIVE}}
"""
    with house(folder / "site", RULES, destinations=destinations) as site:
        archive = Archive(archive_port, site.port)
        with archive.open():
            site.start(**environ)
            yield site, archive, Asker(asker_port, site.port)
            site.stop()


def placed(place: tuple[House, Archive, Asker], folder: Path, name: str, way: str) -> Place:
    """A study that was not sent yet, and an archive that begins anew."""
    site, archive, asker = place
    archive.begin(way)
    before = max((int(row["id"]) for row in site.table("event")), default=0)
    return Place(site, archive, Asker(asker.port, site.port), Scanner(site.port), ball(folder, name), before)


@pytest.fixture(scope="module")
def patient_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Archive, Asker]]:
    """One node for all tests that let the archive have its time."""
    with running(tmp_path_factory.mktemp("patient")) as found:
        yield found


@pytest.fixture(scope="module")
def hasty_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Archive, Asker]]:
    """One node for those that do not."""
    with running(tmp_path_factory.mktemp("hasty"), within="7 s") as found:
        yield found


@pytest.fixture
def here(patient_node: tuple[House, Archive, Asker], tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """A study of this test's own at the patient node."""
    return placed(patient_node, tmp_path, request.node.name, "same")


@pytest.fixture
def soon(hasty_node: tuple[House, Archive, Asker], tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """The same at the hasty one."""
    return placed(hasty_node, tmp_path, request.node.name, "never")


def test_the_archive_answers_on_a_new_association(here: Place) -> None:
    """All objects of a batch are asked about in one request, and are committed when the archive's report came."""
    here.archive.way = "new"
    here.scanner.send(here.files)
    here.until(committed=8)
    asked = [reference for request in here.archive.asked for reference in references(request)]
    assert Counter(asked) == Counter((CT, uid) for uid in here.uids)
    assert all(uid.startswith("2.25.") for uid in here.archive.transactions)
    here.site.wait_for(lambda: set(here.archive.answers) == {0x0000}, "the node's answer to the report")
    assert here.events("deliveries_committed")


def test_the_archive_answers_on_the_same_association(here: Place) -> None:
    """A report that comes while our association is open counts just as well."""
    here.scanner.send(here.files)
    here.until(committed=8)
    assert set(here.archive.answers) == {0x0000}


def test_only_what_failed_is_sent_again(here: Place) -> None:
    """Of eight objects one is not committed to: it alone is stored again, and asked about again."""
    bad = here.uids[3]
    here.archive.fails = lambda uid, nth: 0x0110 if uid == bad and nth == 0 else 0
    here.scanner.send(here.files)
    here.until(committed=7, waiting=1)
    (failed,) = (row for row in here.deliveries() if row["state"] == "waiting")
    assert failed["reason"] == "ARCHIVE does not commit to it: 0110H, processing failure; it is sent again"
    here.site.hurry()
    here.until(committed=8)
    assert Counter(here.archive.stored) == Counter([*here.uids, bad])
    assert [uid for _, uid in references(here.archive.asked[-1])] == [bad]
    assert len(here.events("commitment_failed")) == 1


def test_an_archive_that_refuses_blocks_no_object(here: Place) -> None:
    """N-ACTION is refused: objects are stored all the same, the archive is not down, and it is asked again."""
    here.archive.way = "refuse"
    here.scanner.send(here.files[:4])
    here.site.wait_for(lambda: bool(here.events("commitment_refused")), "the refusal")
    here.scanner.send(here.files[4:])
    here.until(stored=8)
    reasons = {row["reason"] for row in here.deliveries() if row["commitment_id"]}
    assert len(reasons) == 1 and "answered N-ACTION with 0110, processing failure" in reasons.pop()
    overview = here.site.overview()
    assert overview["destinations"] == []
    assert [(row["destination"], row["objects"]) for row in overview["uncommitted"]] == [("ARCHIVE", 8)]
    here.archive.way = "same"
    here.until(committed=8, seconds=60)
    assert len(set(here.archive.transactions)) == len(here.archive.transactions) >= 2


def test_a_modality_is_answered_when_the_archive_has_committed(here: Place) -> None:
    """Each reference has its reason: committed, unknown, of another class, of no storage class; a UID used twice."""
    here.archive.way = "new"
    first, second, third = generate_uid(), generate_uid(), generate_uid()
    uids = here.uids
    with here.asker.open():
        here.scanner.send(here.files)
        assert here.asker.ask(first, [(CT, uid) for uid in uids]) == 0x0000
        here.site.wait_for(lambda: bool(here.asker.of(first)), "the report")
        ((kind, report),) = here.asker.of(first)
        assert (kind, sorted(uid for _, uid in references(report)), failures(report)) == (1, sorted(uids), {})
        assert here.states() == {"committed": 8}, "success is what the archive said, and nothing earlier"

        mr, echo = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1"
        named = [(CT, uids[0]), (CT, "1.2.3.4"), (mr, uids[1]), (echo, uids[2])]
        assert here.asker.ask(second, named) == 0x0000
        here.site.wait_for(lambda: bool(here.asker.of(second)), "the second report")
        ((kind, report),) = here.asker.of(second)
        assert kind == 2 and references(report) == [(CT, uids[0])]
        assert failures(report) == {"1.2.3.4": 0x0112, uids[1]: 0x0119, uids[2]: 0x0122}

        assert here.asker.ask(first, [(CT, uids[0])]) == 0x0000
        here.site.wait_for(lambda: len(here.asker.of(first)) == 2, "the answer to a UID used twice")
        assert failures(here.asker.of(first)[1][1]) == {uids[0]: 0x0131}

        many = [(CT, uids[n]) if n < 8 else (CT, f"1.2.3.{n}") for n in range(10_000)]
        assert here.asker.ask(third, many) == 0x0000
        here.site.wait_for(lambda: bool(here.asker.of(third)), "the report on ten thousand")
        ((kind, report),) = here.asker.of(third)
        assert (kind, len(references(report)), len(failures(report))) == (2, 8, 9992)
        assert set(failures(report).values()) == {0x0112}


def test_who_may_not_ask_is_not_accepted(here: Place) -> None:
    """Only a peer with `commit_after` may ask: for others the SOP class is none that we support, or 0124H."""
    assert Asker(0, here.site.port, "CT01").ask(generate_uid(), [(CT, "1.2.3")]) is None
    assert Asker(0, here.site.port, "ARCHIVE").ask(generate_uid(), [(CT, "1.2.3")]) == 0x0124
    assert "commitment_unauthorised" in here.site.log.read_text()
    here.archive.report(dialogue("1.2.3.4.5", [(CT, "1.2.3")], {}))
    assert here.archive.answers == [0x0000], "nobody asked for it, which is no fault of the archive's"
    here.site.wait_for(lambda: "commitment_unknown" in here.site.log.read_text(), "the log")


def test_an_archive_that_does_not_answer_is_asked_again(soon: Place) -> None:
    """Without an answer in time the same objects are asked about under a new transaction UID, with an event."""
    soon.scanner.send(soon.files)
    soon.site.wait_for(lambda: bool(soon.events("commitment_unanswered")), "an answer that did not come")
    soon.archive.way = "same"
    soon.until(committed=8, seconds=60)
    times = Counter(uid for request in soon.archive.asked for _, uid in references(request))
    assert set(times) == set(soon.uids) and min(times.values()) >= 1 and max(times.values()) >= 2
    assert len(set(soon.archive.transactions)) == len(soon.archive.asked)
    assert all("asked again" in detail for detail in soon.events("commitment_unanswered"))
    assert len(soon.archive.stored) == 8, "nothing is stored twice for it"


def test_a_modality_that_has_gone_is_told_when_it_is_back(soon: Place) -> None:
    """What the archive does not commit to in time is 0110H; the report is kept until the modality listens again."""
    soon.scanner.send(soon.files)
    transaction = generate_uid()
    assert soon.asker.ask(transaction, [(CT, uid) for uid in soon.uids]) == 0x0000
    soon.site.wait_for(lambda: bool(soon.events("pledge_untold")), "a report that nobody took")
    soon.site.kill("conductor")
    with soon.asker.open():
        soon.site.wait_for(lambda: bool(soon.asker.of(transaction)), "the report")
    ((kind, report),) = soon.asker.of(transaction)
    assert kind == 2 and failures(report) == dict.fromkeys(soon.uids, 0x0110)
    assert len(soon.archive.stored) == 8 and len(soon.deliveries()) == 8, "nothing is deleted or sent again"


@pytest.mark.long
def test_killed_between_asking_and_answer(tmp_path: Path) -> None:
    """A conductor that dies with a request on its way, or with its answer in hand, asks again under a new UID."""
    once = tmp_path / "once"
    points = ("after-commit-claim", "before-commit-answer")
    fault = {"PACSNODE_FAULT": ",".join(points), "PACSNODE_FAULT_ONCE": str(once)}
    with running(tmp_path, **fault) as found:
        here = placed(found, tmp_path, "killed", "same")
        here.scanner.send(here.files)
        here.until(committed=8, seconds=60)
        assert all(Path(f"{once}.{point}").exists() for point in points)
        assert len(set(here.archive.transactions)) == len(here.archive.asked) >= 2
        assert len(here.archive.stored) == 8
