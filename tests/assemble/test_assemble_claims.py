"""Claims about claims: what MPPS names and C-FIND counts, while a series is still coming."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flow_material import header

from node.assemble.assembly import Assembly
from node.assemble.claims import CONFIRM, Claims, Count, enough, short

SETTLE = timedelta(seconds=1)


def test_names_are_matched_as_objects_come() -> None:
    """What a step names is missing until it is here, whichever comes first; what it does not name is more."""
    assembly = Assembly()
    assembly.begin(1, "CT01", {})
    assembly.add(1, 11, header(1), 10.0)
    assembly.names(1, 5, "CT01", frozenset({"1.2.3.1", "1.2.3.2"}), {"1.2.3.1"})
    assert assembly.evidence(1, 12.0).claims[0].words == "MPPS of CT01 names 2 objects, 1 here"
    assembly.add(1, 12, header(2), 12.0)
    (claim,) = assembly.evidence(1, 12.0).claims
    assert claim.whole and claim.of_source and claim.words == "MPPS of CT01 names 2 objects, all here"
    assembly.add(1, 13, header(3), 13.0)
    assert assembly.evidence(1, 13.0).claims[0].more == 1


def test_a_newer_header_is_the_same_object() -> None:
    """An object that takes another's place is not one more, and the other is not missing."""
    assembly = Assembly()
    assembly.begin(1, "CT01", {})
    assembly.names(1, 5, "CT01", frozenset({"1.2.3.1"}), set())
    assembly.add(1, 11, header(1), 10.0)
    assembly.drop(1, 11)
    assembly.add(1, 12, header(1), 11.0)
    assert assembly.evidence(1, 12.0).claims[0].whole


def test_a_step_of_another_peer_is_not_the_source() -> None:
    """A RIS that passes steps on may lengthen the waiting; the scanner alone may end it."""
    assembly = Assembly()
    assembly.begin(1, "CT01", {})
    assembly.add(1, 11, header(1), 10.0)
    assembly.names(1, 5, "RIS", frozenset({"1.2.3.1"}), {"1.2.3.1"})
    claims = assembly.evidence(1, 12.0).claims
    assert claims[0].whole and not enough(claims)
    assembly.names(1, 6, "CT01", frozenset({"1.2.3.1"}), {"1.2.3.1"})
    assert enough(assembly.evidence(1, 12.0).claims)


@pytest.mark.parametrize(
    ("last", "asked", "now", "due"),
    [
        (10.0, [], 10.5, False),  # not settled
        (10.0, [], 11.0, True),
        (10.0, [11.0], 15.9, False),
        (10.0, [11.0], 16.0, True),  # 5 s later, to see whether it stands
        (10.0, [11.0, 16.0], 25.9, False),
        (10.0, [11.0, 16.0], 26.0, True),
        (30.0, [11.0, 16.0], 30.5, False),
        (30.0, [11.0, 16.0], 31.0, True),  # more came since: soon again
        (10.0, [11.0 + n for n in range(9)], 78.0, False),
        (10.0, [11.0 + n for n in range(9)], 79.0, True),  # every minute in the end
    ],
)
def test_when_to_ask(last: float, asked: list[float], now: float, due: bool) -> None:
    """Once the series has settled, then in growing pauses, soon again when more came; never twice at a time."""
    count = Count("CT01")
    for moment in asked:
        count.ask(moment)
        assert not count.due(last, moment + 100, SETTLE)
        count.answer(300, "", moment + 0.1)
    assert count.due(last, now, SETTLE) is due


def test_a_count_is_firm_when_it_stood() -> None:
    """Only a number given again 5 s later, with no object between, ends the waiting."""
    count = Count("CT01")
    assert count.pending(10.0) and count.claim("CT01", 3, 10.0) is None
    count.answer(3, "", 11.0)
    first = count.claim("CT01", 3, 10.0)
    assert first is not None and first.whole and not first.firm and not count.pending(10.0)
    count.answer(3, "", 11.0 + CONFIRM.total_seconds())
    again = count.claim("CT01", 3, 10.0)
    assert again is not None and again.firm
    grown = count.claim("CT01", 3, 14.0)  # an object came at 14 s
    assert grown is not None and not grown.firm
    count.answer(4, "", 17.0)
    more = count.claim("CT01", 3, 10.0)
    assert more is not None and not more.firm and short([more]) == "C-FIND at CT01 counts 4 objects, 3 here"


def test_who_cannot_be_asked_holds_nothing_up() -> None:
    """A failure is no claim and nothing to wait for, but a word; an answer of before is remembered."""
    claims = Claims(count=Count("CT01"))
    assert claims.count is not None
    claims.ask(11.0)
    assert claims.count.pending(10.0)
    claims.count.answer(None, "CT01 at h:1 did not answer", 12.0)
    assert not claims.count.pending(10.0) and claims.now("CT01", 3, 10.0) == ()
    assert claims.words == ("not counted: CT01 at h:1 did not answer",)
    claims.count.answer(3, "", 20.0)
    claims.count.answer(None, "CT01 at h:1 did not answer", 30.0)
    assert claims.words == () and len(claims.now("CT01", 3, 10.0)) == 1
