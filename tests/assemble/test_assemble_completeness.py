"""Claims about when a series is complete: evidence and policy in, a verdict that explains itself out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.assemble.claims import Claim
from node.assemble.completeness import Carrier, Ended, Evidence, Open, Policy, Sealed, gaps, verdict
from node.facts import Facts, gather


def s(seconds: float) -> timedelta:
    """Seconds."""
    return timedelta(seconds=seconds)


def carrier(objects: int = 20, ended: Ended = Ended.OPEN, ago: float = 0) -> Carrier:
    """One association."""
    return Carrier(objects, ended, s(ago))


QUIET = Policy(quiet_for=s(60))
RELEASE = Policy(quiet_for=s(60), on_release=True, settle=s(1))
GONE = Ended.RELEASED
SPREAD = "quiet for 60 s; this source spreads a series over several associations"


@pytest.mark.parametrize(
    ("policy", "quiet", "carriers", "several", "expected"),
    [
        (QUIET, 0, [carrier()], False, Open(s(60))),
        (QUIET, 59.5, [carrier()], False, Open(s(0.5))),
        (QUIET, 60, [carrier()], False, Sealed("quiet for 60 s")),
        (
            QUIET,
            5,
            [carrier(20, GONE, 5)],
            False,
            Open(s(55)),
        ),  # a release says nothing where it was not asked for
        (RELEASE, 0.5, [carrier(20, GONE, 0.5)], False, Open(s(0.5))),  # settling
        (RELEASE, 1, [carrier(20, GONE, 1)], False, Sealed("association released after 20 objects")),
        (RELEASE, 1, [carrier(2, GONE, 1)], False, Sealed("association released after 2 objects")),
        (RELEASE, 1, [carrier(1, GONE, 1)], False, Open(s(59))),  # one image per association
        (RELEASE, 60, [carrier(1, GONE, 60)], False, Sealed("quiet for 60 s")),
        (RELEASE, 1, [carrier(20, Ended.ABORTED, 1)], False, Open(s(59))),  # an abort does not count
        (RELEASE, 60, [carrier(20, Ended.ABORTED, 60)], False, Sealed("quiet for 60 s")),
        (RELEASE, 5, [carrier(20)], False, Open(s(55))),  # still open
        (RELEASE, 60, [carrier(20)], False, Sealed("quiet for 60 s")),
        (RELEASE, 2, [carrier(9, GONE, 8), carrier(9, GONE, 2)], False, Open(s(58))),
        (RELEASE, 60, [carrier(9, GONE, 66), carrier(9, GONE, 60)], False, Sealed(SPREAD)),
        (RELEASE, 2, [carrier(20, GONE, 2)], True, Open(s(58))),  # this source did so before
        (RELEASE, 60, [carrier(20, GONE, 60)], True, Sealed(SPREAD)),
        (QUIET, 60, [carrier(), carrier()], True, Sealed("quiet for 60 s")),  # nothing to fall back from
        (RELEASE, 10, [], False, Open(s(50))),
    ],
)
def test_the_verdict(
    policy: Policy, quiet: float, carriers: list[Carrier], several: bool, expected: Open | Sealed
) -> None:
    """Quiet time seals; a release does where it was asked for, settled, brought two objects and was the only one."""
    assert verdict(Evidence(s(quiet), carriers, several), policy) == expected


# --- what others say


def mpps(said: int = 300, missing: int = 0, more: int = 0, *, of_source: bool = True) -> Claim:
    """What a completed step of CT01 names."""
    return Claim("MPPS of CT01 names", said, missing, more, of_source, named=True)


def counted(said: int = 300, here: int = 300, peer: str = "CT01", *, firm: bool = True) -> Claim:
    """What a peer counts, of a series that CT01 sent."""
    missing, more = max(0, said - here), max(0, here - said)
    return Claim(f"C-FIND at {peer} counts", said, missing, more, peer == "CT01", firm)


PATIENT = Policy(quiet_for=s(60), on_release=True, settle=s(1), count_patience=s(600))
MPPS_ALL = "MPPS of CT01 names 300 objects, all here"
MPPS_SHORT = "MPPS of CT01 names 300 objects, 280 here"
COUNT_ALL = "C-FIND at CT01 counts 300 objects, all here"
PACS_ALL = "C-FIND at PACS counts 300 objects, all here"
PACS_SHORT = "C-FIND at PACS counts 300 objects, 299 here"


@pytest.mark.parametrize(
    ("claims", "quiet", "expected"),
    [
        # The source itself says that all is here: early.
        ([mpps()], 0.4, Open(s(0.6))),
        ([mpps()], 1, Sealed(MPPS_ALL)),
        ([counted()], 1, Sealed(COUNT_ALL)),
        ([counted(firm=False)], 1, Open(s(59))),  # it may be counting while it makes images
        ([counted(firm=False)], 60, Sealed(f"quiet for 60 s; {COUNT_ALL}")),
        ([mpps(), counted(firm=False)], 1, Sealed(f"{MPPS_ALL}; {COUNT_ALL}")),
        # Another system never ends the waiting.
        ([counted(peer="PACS")], 1, Open(s(59))),
        ([counted(peer="PACS")], 60, Sealed(f"quiet for 60 s; {PACS_ALL}")),
        ([mpps(of_source=False)], 1, Open(s(59))),
        # More here than is said: the source does not know all, so it ends nothing, and nothing is missing.
        ([mpps(more=2)], 1, Open(s(59))),
        ([mpps(more=2)], 60, Sealed("quiet for 60 s; MPPS of CT01 names 300 objects, all here and 2 more")),
        (
            [counted(300, 302)],
            60,
            Sealed("quiet for 60 s; C-FIND at CT01 counts 300 objects, all here and 2 more"),
        ),
        # Something is missing: waited for, not for ever.
        ([mpps(missing=20)], 1, Open(s(59))),
        ([mpps(missing=20)], 60, Open(s(540), MPPS_SHORT)),
        ([mpps(missing=20)], 599, Open(s(1), MPPS_SHORT)),
        ([mpps(missing=20)], 600, Sealed(f"nothing more came for 600 s; {MPPS_SHORT}", MPPS_SHORT)),
        ([counted(300, 299, "PACS")], 61, Open(s(539), PACS_SHORT)),
        ([counted(300, 299, "PACS")], 600, Sealed(f"nothing more came for 600 s; {PACS_SHORT}", PACS_SHORT)),
        # The source is content, and somebody else misses one: they do not agree, so it is waited.
        ([mpps(), counted(300, 299, "PACS")], 30, Open(s(30))),
        ([mpps(), counted(300, 299, "PACS")], 60, Open(s(540), PACS_SHORT)),
        (
            [mpps(), counted(300, 299, "PACS")],
            600,
            Sealed(f"nothing more came for 600 s; {MPPS_ALL}; {PACS_SHORT}", PACS_SHORT),
        ),
        ([mpps(1)], 1, Sealed("MPPS of CT01 names 1 object, all here")),
    ],
)
def test_what_others_say(claims: list[Claim], quiet: float, expected: Open | Sealed) -> None:
    """A count may lengthen the waiting; it shortens it only where the source gives it, and the reason says so."""
    assert verdict(Evidence(s(quiet), [carrier()], claims=claims), PATIENT) == expected


def test_a_release_waits_for_what_is_missing() -> None:
    """A released association ends nothing while MPPS misses objects: they may come over the next one."""
    released = [carrier(280, GONE, 5)]
    assert verdict(Evidence(s(5), released, claims=[mpps(missing=20)]), PATIENT) == Open(s(595), MPPS_SHORT)
    assert verdict(Evidence(s(5), released, claims=[counted(peer="PACS")]), PATIENT) == Sealed(
        f"association released after 280 objects; {PACS_ALL}"
    )


def test_an_answer_that_is_under_way_is_waited_for() -> None:
    """Who was asked and has still to answer holds sealing up, for `count_patience` at most."""
    asked = Evidence(s(60), [carrier()], pending=True)
    assert verdict(asked, PATIENT) == Open(s(540))
    assert verdict(Evidence(s(600), [carrier()], pending=True), PATIENT) == Sealed("quiet for 60 s")
    assert verdict(Evidence(s(1), [carrier()], claims=[mpps()], pending=True), PATIENT) == Sealed(MPPS_ALL)


def test_who_could_not_be_asked_is_mentioned() -> None:
    """Remarks stand in the reason, and change nothing."""
    found = verdict(Evidence(s(60), [carrier()], remarks=["not counted: CT01 did not answer"]), PATIENT)
    assert found == Sealed("quiet for 60 s; not counted: CT01 did not answer")


def test_a_policy_may_leave_mpps_out() -> None:
    """With `mpps: no` what steps name neither lengthens nor ends anything; counts do."""
    deaf = Policy(quiet_for=s(60), mpps=False)
    assert verdict(Evidence(s(60), [carrier()], claims=[mpps(missing=9)]), deaf) == Sealed("quiet for 60 s")
    assert verdict(Evidence(s(1), [carrier()], claims=[mpps()]), deaf) == Open(s(59))
    both = Evidence(s(1), [carrier()], claims=[mpps(missing=9), counted()])
    assert verdict(both, deaf) == Sealed(COUNT_ALL)


said = st.lists(
    st.builds(
        Claim, st.just("C-FIND at PACS counts"), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3), st.booleans(),
        st.booleans(), st.booleans(),
    ),
    max_size=2,
)  # fmt: skip


@given(quiet=st.floats(0, 700).map(s), claims=said, pending=st.booleans(), released=st.booleans())
def test_no_claim_holds_a_series_for_ever(
    quiet: timedelta, claims: list[Claim], pending: bool, released: bool
) -> None:
    """Whatever others say or do not say, waiting as long as was said ends; early only by a firm word of the source."""
    carriers = [carrier(20, GONE if released else Ended.OPEN, quiet.total_seconds())]
    found = verdict(Evidence(quiet, carriers, claims=claims, pending=pending), PATIENT)
    if isinstance(found, Open):
        assert timedelta() < found.wait <= PATIENT.count_patience
        ended = [carrier(20, carriers[0].ended, 700)]
        later = Evidence(s(700), ended, claims=claims, pending=pending)
        assert isinstance(verdict(later, PATIENT), Sealed)
    elif quiet < PATIENT.quiet_for and not released:
        assert any(c.of_source and c.firm and c.whole for c in claims)
        assert not any(c.missing for c in claims)
    if isinstance(found, Sealed):
        assert bool(found.incomplete) == (any(c.missing for c in claims))


times = st.floats(0, 200).map(s)
carriers = st.lists(st.builds(Carrier, st.integers(1, 5), st.sampled_from(Ended), times), max_size=3)
policies = st.builds(Policy, st.floats(0.1, 120).map(s), st.booleans(), st.floats(0, 5).map(s))


@given(evidence=st.builds(Evidence, times, carriers, st.booleans()), policy=policies)
def test_waiting_as_long_as_was_said_is_enough(evidence: Evidence, policy: Policy) -> None:
    """If nothing more comes, asking again after `wait` finds the series sealed, and never before was it due."""
    found = verdict(evidence, policy)
    if isinstance(found, Sealed):
        assert evidence.quiet >= policy.quiet_for or policy.on_release
        return
    assert timedelta() < found.wait <= max(policy.quiet_for, policy.settle)
    later = [Carrier(c.objects, c.ended, c.ended_ago + found.wait) for c in evidence.carriers]
    assert isinstance(
        verdict(Evidence(evidence.quiet + found.wait, later, evidence.several_per_series), policy), Sealed
    )


# --- gaps


def stack(*places: float, orientation: tuple[str, ...] = ("1", "0", "0", "0", "1", "0")) -> Facts:
    """Axial slices at these places along z."""
    return gather(
        {"ImageOrientationPatient": (orientation,), "ImagePositionPatient": (("0", "0", str(z)),)}
        for z in places
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (stack(0, 5, 10, 15, 20), ""),
        (stack(20, 10, 0, 5, 15), ""),  # the order they came in does not matter
        (stack(0, 5, 15, 20, 25), "1 gap of up to 10 mm where slices lie 5 mm apart"),
        (stack(0, 5, 15, 20, 25, 40), "2 gaps of up to 15 mm where slices lie 5 mm apart"),
        (stack(0, 5, 12, 17, 22), ""),  # 7 mm of 5 mm is uneven, not a missing slice
        (stack(0, 5, 20), ""),  # three slices say nothing about a usual distance
        (stack(0, 5, 5, 10, 10, 15), ""),  # two images at one place: echoes, phases
        (stack(), ""),
        (gather([{"Modality": (("US",),)}] * 5), ""),
    ],
)
def test_missing_slices_are_told_in_words(facts: Facts, expected: str) -> None:
    """A step of at least one and a half times the usual one in a stack of four or more is a gap."""
    assert gaps(facts) == expected


def test_localizers_in_the_series_are_no_gap() -> None:
    """A scout in another plane is a stack of its own."""
    scout = {
        "ImageOrientationPatient": (("1", "0", "0", "0", "0", "-1"),),
        "ImagePositionPatient": (("0", "90", "0"),),
    }
    cells = [
        {
            "ImageOrientationPatient": (("1", "0", "0", "0", "1", "0"),),
            "ImagePositionPatient": (("0", "0", str(z)),),
        }
        for z in (0, 5, 10, 15)
    ]
    assert gaps(gather([scout, *cells])) == ""


def test_a_segmentation_may_leave_out_frames() -> None:
    """Positions that a SEG skips are empty frames, not missing ones; the same positions in a CT are a gap."""
    cells = tuple(("0", "0", str(z)) for z in (0, 5, 15, 20, 25))
    frames = {"ImageOrientationPatient": (("1", "0", "0", "0", "1", "0"),), "ImagePositionPatient": cells}
    assert (
        gaps(gather([{**frames, "Modality": (("CT",),)}]))
        == "1 gap of up to 10 mm where slices lie 5 mm apart"
    )
    assert gaps(gather([{**frames, "Modality": (("SEG",),)}])) == ""
