"""Claims about the open series in memory: who carried what, and what is remembered of associations."""

from __future__ import annotations

from flow_material import header

from node.assemble.assembly import Assembly
from node.assemble.completeness import Carrier, Ended
from node.facts import gather
from node.model import Header


def opened(*headers: Header, series_id: int = 1) -> Assembly:
    """One series with these objects, which came at 10 s, 11 s and so on."""
    assembly = Assembly()
    assembly.begin(series_id, "CT01", {})
    for number, one in enumerate(headers):
        assembly.add(series_id, number, one, 10.0 + number)
    return assembly


def test_evidence_counts_objects_and_time() -> None:
    """Quiet is measured from the last object, and a carrier says how many it brought and when it ended."""
    assembly = opened(header(1), header(2), header(3))
    assembly.end("1-1", False, 12.5)
    evidence = assembly.evidence(1, 14.0)
    assert evidence.quiet.total_seconds() == 2.0
    ((carrier),) = evidence.carriers
    assert (carrier.objects, carrier.ended, carrier.ended_ago.total_seconds()) == (3, Ended.RELEASED, 1.5)
    assert not evidence.several_per_series


def test_an_abort_is_remembered_as_one() -> None:
    """An association that broke off is not a release."""
    assembly = opened(header(1))
    assembly.end("1-1", True, 11.0)
    assert assembly.evidence(1, 11.0).carriers[0].ended is Ended.ABORTED


def test_an_open_association_is_open() -> None:
    """Whose end nobody told goes on."""
    assembly = opened(header(1))
    assembly.end("9-9", False, 11.0)  # another's
    assert assembly.evidence(1, 12.0).carriers == [Carrier(1)]
    assert assembly.ended == {}


def test_a_peer_that_spreads_one_series_is_known_from_then_on() -> None:
    """Two associations for one series mark the peer for its later series, and no other peer."""
    assembly = opened(header(1), header(2, association="1-2"))
    assembly.begin(2, "CT01", {})
    assembly.begin(3, "MR01", {})
    assert assembly.evidence(2, 20.0).several_per_series
    assert not assembly.evidence(3, 20.0).several_per_series


def test_closing_takes_the_series_out_and_forgets_its_associations() -> None:
    """What no open series needs any more is not kept; what another one needs is."""
    assembly = opened(header(1), header(2))
    assembly.begin(2, "CT01", {})
    assembly.add(2, 9, header(9, association="1-3"), 20.0)
    assembly.end("1-1", False, 21.0)
    assembly.end("1-3", False, 22.0)
    found = assembly.close(1)
    assert list(found.members) == [0, 1]
    assert found.facts() == gather([header(1).attributes, header(2).attributes])
    assert list(assembly.ended) == ["1-3"]
    assert list(assembly.series) == [2]


def test_a_replaced_object_leaves_the_series() -> None:
    """Dropping a member, known or not, leaves the others in their order."""
    assembly = opened(header(1), header(2), header(3))
    assembly.drop(1, 1)
    assembly.drop(1, 99)
    assert list(assembly.series[1].members) == [0, 2]
    assembly.add(1, 7, header(9), 20.0)
    assembly.add(1, 0, header(8), 21.0)
    left = [header(3).attributes, header(9).attributes, header(8).attributes]
    assert list(assembly.series[1].members.values()) == left
    assert assembly.series[1].facts() == gather(left)


def test_a_revision_begins_with_the_members_of_the_one_before() -> None:
    """Late images join what was sealed; beginning again changes nothing."""
    assembly = Assembly()
    assembly.begin(2, "CT01", {1: header(1).attributes})
    assembly.add(2, 5, header(5), 10.0)
    assembly.begin(2, "CT01", {})
    assert list(assembly.series[2].members) == [1, 5]
