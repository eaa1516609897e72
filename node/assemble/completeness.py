"""When is a series complete? Facts, clock and policy in; a verdict that explains itself out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from statistics import median

from node.facts import Facts, stacks


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait, and whether a released association may end the waiting."""

    quiet_for: timedelta
    on_release: bool = False
    settle: timedelta = timedelta(seconds=1)
    attention_after: timedelta = timedelta(hours=2)


class Ended(Enum):
    """What became of an association."""

    OPEN = "open"
    RELEASED = "released"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Carrier:
    """One association that carried objects of this series."""

    objects: int
    ended: Ended = Ended.OPEN
    ended_ago: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against a series being complete, at one moment."""

    quiet: timedelta
    """Since its last object came."""
    carriers: Sequence[Carrier]
    several_per_series: bool = False
    """This source is known to spread a series over several associations."""


@dataclass(frozen=True, slots=True)
class Open:
    """Not complete yet; nothing to ask again before *wait* has passed."""

    wait: timedelta


@dataclass(frozen=True, slots=True)
class Sealed:
    """Complete, and why we think so."""

    reason: str


def verdict(evidence: Evidence, policy: Policy) -> Open | Sealed:
    """Seal on release where the policy and the evidence allow it, else after a quiet time (design §4)."""
    if policy.on_release and (release := _by_release(evidence, policy)) is not None:
        return release
    if evidence.quiet >= policy.quiet_for:
        fallback = (
            "; this source spreads a series over several associations" if _spread(evidence, policy) else ""
        )
        return Sealed(f"quiet for {_seconds(policy.quiet_for)}{fallback}")
    return Open(policy.quiet_for - evidence.quiet)


def _spread(evidence: Evidence, policy: Policy) -> bool:
    return policy.on_release and (evidence.several_per_series or len(evidence.carriers) > 1)


def _by_release(evidence: Evidence, policy: Policy) -> Open | Sealed | None:
    """A released association that brought two objects or more ends the series; None: it says nothing."""
    if _spread(evidence, policy) or len(evidence.carriers) != 1:
        return None
    (carrier,) = evidence.carriers
    if carrier.ended is not Ended.RELEASED or carrier.objects < 2:
        return None
    if carrier.ended_ago < policy.settle:
        return Open(policy.settle - carrier.ended_ago)
    return Sealed(f"association released after {carrier.objects} objects")


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():g} s"


def gaps(facts: Facts) -> str:
    """Where slices seem to be missing, in words; empty when there is no gap.

    A gap is a step of at least 1.5 times the usual one in a stack of four or more slices. A segmentation may
    leave out its empty frames, so its gaps say nothing.
    """
    modality = facts.columns.get("Modality")
    if modality is not None and set(modality.cells) == {(("SEG",),)}:
        return ""
    for stack in stacks(facts):
        steps = [b - a for a, b in zip(stack.offsets, stack.offsets[1:], strict=False)]
        if len(steps) < 3:
            continue
        usual = median(steps)
        wide = [step for step in steps if step > 1.5 * usual]
        if wide:
            count = "1 gap" if len(wide) == 1 else f"{len(wide)} gaps"
            return f"{count} of up to {max(wide):.4g} mm where slices lie {usual:.4g} mm apart"
    return ""
