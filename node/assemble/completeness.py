"""When is a series complete? Facts, clock and policy in; a verdict that explains itself out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from statistics import median

from node.assemble.claims import Claim, enough, short
from node.facts import Facts, stacks


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait, and what may end or lengthen the waiting."""

    quiet_for: timedelta
    on_release: bool = False
    settle: timedelta = timedelta(seconds=1)
    attention_after: timedelta = timedelta(hours=2)
    count_patience: timedelta = timedelta(minutes=10)
    """So long, from the last object, what others say is missing is waited for."""
    count_from: str = ""
    """The peer that is asked how many objects the series has; empty: nobody."""
    mpps: bool = True
    """Whether what a performed procedure step names is waited for."""


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
    claims: Sequence[Claim] = ()
    """What others say belongs to it."""
    pending: bool = False
    """Somebody who was asked for a count has still to answer."""
    remarks: Sequence[str] = ()
    """What else is worth a word."""


@dataclass(frozen=True, slots=True)
class Open:
    """Not complete yet; nothing to ask again before *wait* has passed."""

    wait: timedelta
    short: str = ""
    """What it still waits for because others say that it is missing; empty while it is open anyway."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Complete, and why we think so."""

    reason: str
    incomplete: str = ""
    """What others say is missing although nothing more came; empty where nobody does."""


def verdict(evidence: Evidence, policy: Policy) -> Open | Sealed:
    """Seal when the source says that all is here, else by release or quiet time once nobody misses anything.

    Whoever misses something, or has still to say, is waited for no longer than `count_patience`.
    """
    if not policy.mpps:
        evidence = replace(evidence, claims=[claim for claim in evidence.claims if not claim.named])
    if enough(evidence.claims):
        if evidence.quiet >= policy.settle:
            return Sealed(_words("", evidence))
        return Open(policy.settle - evidence.quiet)
    found = _by_time(evidence, policy)
    if isinstance(found, Open):
        return found
    missing = short(evidence.claims)
    if (missing or evidence.pending) and evidence.quiet < policy.count_patience:
        return Open(policy.count_patience - evidence.quiet, missing)
    if missing:
        nothing = f"nothing more came for {_seconds(max(policy.count_patience, policy.quiet_for))}"
        return Sealed(_words(nothing, evidence), missing)
    return Sealed(_words(found.reason, evidence))


def _words(reason: str, evidence: Evidence) -> str:
    said = [claim.words for claim in evidence.claims]
    return "; ".join(one for one in (reason, *said, *evidence.remarks) if one)


def _by_time(evidence: Evidence, policy: Policy) -> Open | Sealed:
    """Seal on release where the policy and the evidence allow it, else after a quiet time."""
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
