"""Claims about when a series is complete: evidence and policy in, a verdict that explains itself out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
