"""Seventeen destinations with seventeen troubles beside a healthy one, all at once, on a real node.

One node serves them all: what one of them does must not reach the next. First they misbehave, and what the tables
say is kept; then they are mended, and what follows must follow by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import peers
import pydicom
import pytest
from crash.crash_house import House, Scanner, ball, changed, house
from crash.rogues import Manners, Peer

MR = "1.2.840.10008.5.1.4.1.1.4"
SLICES, OTHERS = 48, 3
"""CT objects, more than the twenty refusals after which a destination is paused; and objects of another class."""
POISON, AILING = 4, 5
"""Places in the series of the objects that some peers cannot bear."""


def nth(number: int) -> Callable[[str], bool]:
    """Whether a UID is that of the CT slice at this place; set when the series is written."""
    return lambda uid: uid == PLACES.get(number)


PLACES: dict[int, str] = {}
WARNINGS = (0xB000, 0xB006, 0xB007)
TROUBLES: dict[str, Manners | None] = {
    "DOWN": None,  # nothing listens
    "FLAPPING": Manners(hangs_up=lambda n: n % 6 < 3),
    "SLOW": Manners(rate=1000),
    "SILENT": Manners(silent=True),
    "STOPPED": Manners(stops_reading=True),
    "ONE_CLASS": Manners(refuses=lambda sop_class: sop_class == MR),
    "NO_CLASS": Manners(refuses=lambda _: True),
    "FULL": Manners(answer=lambda *_: 0xA700),
    "FAILING": Manners(answer=lambda *_: 0x0110),
    "PUZZLED": Manners(answer=lambda *_: 0xC000),
    "PICKY": Manners(answer=lambda uid, _: 0xA900 if nth(AILING)(uid) else 0),
    "STRICT": Manners(answer=lambda uid, _: 0x0122 if nth(AILING)(uid) else 0),
    "WARNING": Manners(answer=lambda uid, _: WARNINGS[int(uid[-1]) % 3]),
    "LYING": Manners(shift=lambda uid, n: 1 if nth(AILING)(uid) and n == 0 else 0),
    "NERVOUS": Manners(aborts=lambda uid, n: nth(AILING)(uid) and n == 0),
    "ALLERGIC": Manners(aborts=lambda uid, _: nth(POISON)(uid)),
    "STRANGER": Manners(rejects=(1, 1, 3)),
    "RENAMED": Manners(rejects=(1, 1, 7)),
}
PAUSED, UNKNOWN = ("FULL", "FAILING", "PUZZLED"), ("STRANGER", "RENAMED")
STUCK = ("SLOW", "SILENT", "STOPPED")
"""Nothing is wrong with them yet in the tables: their timeouts are longer than this test is patient."""
PARKING = {"ONE_CLASS": OTHERS, "PICKY": 1, "STRICT": 1}
"""Those that refuse for good → how many."""


@dataclass
class Story:
    """What happened, for each of the claims below."""

    sent: dict[str, str]
    order: list[str]
    peers: dict[str, Peer]
    ill: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """Destination → its deliveries when the healthy one had everything and the others had shown their trouble."""
    known: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Destination → what was known of it then."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Destination → C-STORE requests until then."""
    healthy_at: float = 0.0
    rate: float = 0.0
    left: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """Destination → its deliveries at the end."""
    known_after: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    """Destination → names of its events."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Send two series to all of them, look, mend them, look again."""
    folder = tmp_path_factory.mktemp("outages")
    files = ball(folder, "ct", slices=SLICES)
    files += [
        changed(path, folder / "mr" / path.name, _as_mr) for path in ball(folder, "other", slices=OTHERS)
    ]
    PLACES.update(enumerate(str(pydicom.dcmread(path).SOPInstanceUID) for path in files))
    with ExitStack() as stack:
        made = {name: Peer(peers.free_port(), manners=how or Manners()) for name, how in TROUBLES.items()}
        made["PACS"] = Peer(peers.free_port())
        lines = [
            f"  {name}: {{ae_title: {name}, address: 127.0.0.1:{peer.port}}}"
            for name, peer in made.items()
            if name != "PACS"
        ]
        rule = f"""
rule: all
purpose: Everything to everyone.
owner: tests@hospital.example
when: {{}}
send:
  - {{what: received, to: [{", ".join(made)}]}}
"""
        site = stack.enter_context(
            house(
                folder / "site",
                {"all": rule},
                pacs_port=made["PACS"].port,
                destinations="\n".join(lines),
            )
        )
        for name, peer in made.items():
            if name != "DOWN":
                stack.enter_context(peer.open())
        site.start()
        scanner = Scanner(site.port)
        scanner.send(files)
        told = Story(scanner.acknowledged, list(scanner.acknowledged), made)
        _be_ill(site, told)
        stack.enter_context(made["DOWN"].open())
        _get_well(site, told)
        site.stop()
        yield told


def _as_mr(ds: Any) -> None:
    ds.SOPClassUID, ds.Modality = MR, "MR"
    ds.file_meta.MediaStorageSOPClassUID = MR


def _be_ill(site: House, story: Story) -> None:
    """Until the healthy one has everything and each of the others has shown what it is like."""
    pacs, number = story.peers["PACS"], len(story.sent)
    site.wait_for(lambda: len(pacs.held) == number, "everything at the healthy destination")
    story.healthy_at = pacs.at[-1]
    story.rate = number / max(1e-3, pacs.at[-1] - pacs.at[0])

    def shown() -> bool:
        known = {row["name"]: row for row in site.overview()["destinations"]}
        down = all(known.get(n, {}).get("down") for n in ("DOWN", "NO_CLASS", *PAUSED, *UNKNOWN))
        got = {name: len(story.peers[name].held) for name in TROUBLES}
        lacks = {"LYING": 1, "NERVOUS": 1, "ALLERGIC": 1, "WARNING": 0, **PARKING}
        return down and all(got[name] >= number - some for name, some in lacks.items())

    site.wait_for(shown, "all troubles")
    for name in story.peers:
        story.ill[name] = list(site.table("delivery", destination=name))
        story.attempts[name] = sum(story.peers[name].asked.values())
    story.known = {row["name"]: row for row in site.overview()["destinations"]}


def _get_well(site: House, story: Story) -> None:
    """Until everyone has all that is not refused for good; destinations are asked sooner than they would be."""
    for name, peer in story.peers.items():
        if name not in (*PARKING, "WARNING", "ALLERGIC"):
            peer.behave()
    number = len(story.sent)
    until = time.monotonic() + 60
    while not all(
        len(peer.held) >= number - PARKING.get(name, 1 if name == "ALLERGIC" else 0)
        for name, peer in story.peers.items()
    ):
        site.ask_now()
        site.hurry("LYING", "NERVOUS")  # their object alone failed, and half a minute is long
        time.sleep(0.5)
        if time.monotonic() > until:
            lacking = {name: number - len(peer.held) for name, peer in story.peers.items()}
            pytest.fail(f"objects still lacking after 60 s: {lacking}; {site.state()}\n{site.tail()}")
    site.wait_for(
        lambda: {row["destination"] for row in site.table("delivery", state="sending")} <= {"ALLERGIC"},
        "the end of the associations",
    )
    for name in story.peers:
        story.left[name] = list(site.table("delivery", destination=name))
        story.told[name] = [row["name"] for row in site.table("event", destination=name)]
    story.known_after = {row["name"]: row for row in site.overview()["destinations"]}


def states(rows: list[Mapping[str, Any]]) -> set[str]:
    """The states of some deliveries."""
    return {row["state"] for row in rows}


def test_the_healthy_destination_is_first(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    """Everything is at the healthy one before any of the others has it, except those that take all at once as well."""
    record_property("table: the healthy destination beside seventeen others", f"{story.rate:.0f} objects/s")
    for name in set(TROUBLES) - {
        "WARNING",
        "LYING",
        *PARKING,
    }:  # they refuse, warn, or lie about what they took
        peer = story.peers[name]
        last = max(peer.at) if len(peer.held) == len(story.sent) else float("inf")
        assert story.healthy_at < last, name


@pytest.mark.parametrize("name", [name for name in TROUBLES if name not in PARKING])
def test_trouble_with_a_destination_parks_nothing(story: Story, name: str) -> None:
    """Whatever it does, its objects wait."""
    assert states(story.ill[name]) <= {"waiting", "sending", "stored"}
    assert "delivery_parked" not in story.told[name]


@pytest.mark.parametrize("name", ["PACS", *TROUBLES])
def test_everything_arrives_once_it_is_mended(story: Story, name: str) -> None:
    """Byte-equal, nothing under two faces, and nothing lacks but what was refused for good."""
    held, lacks = story.peers[name].held, PARKING.get(name, 1 if name == "ALLERGIC" else 0)
    assert all(held[uid] == {story.sent[uid]} for uid in held)
    assert len(held) == len(story.sent) - lacks
    stored = [row for row in story.left[name] if row["state"] == "stored"]
    assert len(stored) == len(held)


@pytest.mark.parametrize("name", [name for name in TROUBLES if name not in ("ALLERGIC",)])
def test_it_counts_as_up_when_it_is_mended(story: Story, name: str) -> None:
    """Nothing of the trouble is left in the tables."""
    known = story.known_after.get(name)
    assert not (known and known["down"]), known


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("DOWN", "unreachable", "refused the connection"),
        ("NO_CLASS", "rejected", "accepts none of what was proposed"),
        ("STRANGER", "unknown_ae", "alling AE"),
        ("RENAMED", "unknown_ae", "alled AE"),
        ("FULL", "paused", "A700"),
        ("FAILING", "paused", "0110"),
        ("PUZZLED", "paused", "C000"),
    ],
)
def test_the_tables_say_what_is_wrong(story: Story, name: str, kind: str, words: str) -> None:
    """Down, of which kind, and why in words."""
    known = story.known[name]
    assert known["down"] and known["kind"] == kind, known
    assert words in known["reason"], known["reason"]
    assert story.told[name].count("destination_down") == 1, story.told[name]
    assert story.told[name][-1] == "destination_up"


@pytest.mark.parametrize("name", PAUSED)
def test_a_destination_that_refuses_everything_is_spared(story: Story, name: str) -> None:
    """Twenty equal refusals in a row end it, in one batch or over several; then one of each series now and then."""
    assert 20 <= story.attempts[name] <= 19 + 20 + 2 * 2  # nineteen before, a whole batch, and two trials
    tried = [row for row in story.ill[name] if row["failures"]]
    assert len(tried) >= 20 and {row["status"] for row in tried} <= {0xA700, 0x0110, 0xC000}


@pytest.mark.parametrize(
    ("name", "words"),
    [("ONE_CLASS", "does not accept this SOP class"), ("PICKY", "A900"), ("STRICT", "0122")],
)
def test_what_waiting_cannot_change_is_parked_at_once(story: Story, name: str, words: str) -> None:
    """Only the objects that are refused for good, after one attempt, with the reason."""
    parked = [row for row in story.ill[name] if row["state"] == "parked"]
    assert len(parked) == PARKING[name]
    assert all(words in row["reason"] and row["failures"] == 1 for row in parked), parked
    assert states(story.left[name]) == {"stored", "parked"}


def test_warnings_are_stored(story: Story) -> None:
    """B000, B006 and B007 are success with a remark, which stays (PS3.4 Table B.2-1)."""
    rows = story.left["WARNING"]
    assert states(rows) == {"stored"} and {row["status"] for row in rows} == set(WARNINGS)
    assert all(f"{row['status']:04X}" in row["reason"] for row in rows)
    assert story.peers["WARNING"].asked.total() == len(story.sent)


def test_an_answer_to_something_else_ends_the_association(story: Story) -> None:
    """After a wrong Message ID nothing more is sent on that association, and the object is sent again."""
    lying = story.peers["LYING"]
    assert lying.after_a_lie == 0
    assert lying.asked[PLACES[AILING]] == 2
    assert lying.asked.total() == len(story.sent) + 1


def test_an_abort_costs_one_more_attempt(story: Story) -> None:
    """An association that was aborted in mid-object once: that object is sent again, the others once."""
    nervous = story.peers["NERVOUS"]
    assert nervous.asked[PLACES[AILING]] == 2
    assert nervous.asked.total() == len(story.sent) + 1


def test_one_poisonous_object_holds_up_no_other(story: Story) -> None:
    """An object that ends every association waits alone, blamed itself, and the destination is up for the rest."""
    (waiting,) = [row for row in story.left["ALLERGIC"] if row["state"] != "stored"]
    peer = story.peers["ALLERGIC"]
    assert peer.asked[PLACES[POISON]] == waiting["attempt"] >= 2
    assert all(peer.asked[uid] == 1 for uid in story.sent if uid != PLACES[POISON])
    assert story.told["ALLERGIC"].count("destination_down") <= 1


@pytest.mark.parametrize("name", ["PACS", "FLAPPING", "DOWN", "NO_CLASS", *UNKNOWN])
def test_the_order_is_that_of_arrival(story: Story, name: str) -> None:
    """But for the first of each series, which may go ahead to see whether it is taken."""
    ahead = {PLACES[0], PLACES[SLICES]}
    order = [uid for uid in story.peers[name].order if uid not in ahead]
    assert order == [uid for uid in story.order if uid not in ahead]


@pytest.mark.parametrize("name", STUCK)
def test_a_destination_that_hangs_has_one_association(story: Story, name: str) -> None:
    """As long as it hangs nothing piles up at it: one connection, until it is cut."""
    assert {row["state"] for row in story.ill[name]} >= {"sending"}
    assert len([at for at in story.peers[name].connections if at < story.healthy_at]) == 1
