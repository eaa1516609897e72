"""What the steps work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from node import __version__
from node.assemble.assembly import Assembly
from node.facts import Facts
from node.model import Cell, Job, OperatorSpec
from node.route.at_once import AtOnce
from node.route.deidentify import is_deidentified
from node.route.match import Context
from node.route.rules import RuleSet, When
from node.route.study_values import Memo
from node.settings import SealPolicy, Settings
from node.store.database import Database

NODE_MAJOR = int(__version__.split(".")[0])
SOFTWARE = f"PACSNode {__version__}"


@dataclass
class Transfer:
    """What came so far of a series that is being fetched."""

    peer: str
    study_uid: str
    series_uid: str
    series_id: int | None = None
    """Its row, once something came."""
    members: dict[int, Mapping[str, Cell]] = field(default_factory=dict)
    """Instance id → attributes."""
    came: set[str] = field(default_factory=set)
    """SOP Instance UIDs."""
    wrong: str = ""
    """Why it cannot be the prior, where something came that was not asked for."""
    objects: tuple[str, ...] | None = None
    """What the series has there, once all of it was sent."""
    sent: float = 0.0
    """Monotonic seconds of that."""


@dataclass
class Parts:
    """What the steps work with; `app` builds it."""

    database: Database
    settings: Settings
    rules: RuleSet
    seal_lines: Sequence[tuple[When | None, SealPolicy]]
    specs: Mapping[str, OperatorSpec]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    assembly: Assembly = field(default_factory=Assembly)
    hold: str = ""
    """Why series are held and nothing is routed (`restored`); empty in a running node."""

    arrived: dict[int, int] = field(default_factory=dict)
    """Open revision → objects that came since `counted` wrote it down."""
    treated: bool = False
    """Something was queued that goes as a treated copy, and the transcoder has not been told."""
    transfers: dict[int, Transfer] = field(default_factory=dict)
    """Fetch under way → what came of it so far."""
    study_facts: dict[tuple[int, frozenset[str]], tuple[tuple[int, ...], Facts]] = field(default_factory=dict)
    """Sealed revision and the attributes that rules over studies ask for → its members and those facts of them."""
    shares: dict[tuple[tuple[str, ...], str, str], str] = field(default_factory=dict)
    """Peers that share, by what, and whose → the one that has it (`manners`)."""
    never: Sequence[tuple[When, str]] = ()
    """The site file's `never_process`: each block, and where it stands."""
    _at_once: tuple[RuleSet, AtOnce] | None = None
    _study_memo: tuple[RuleSet, Memo] | None = None

    @property
    def at_once(self) -> AtOnce:
        """Who sends objects as they arrive, by the rules that are in use now."""
        if self._at_once is None or self._at_once[0] is not self.rules:
            self._at_once = self.rules, AtOnce(self.rules.rules)
        return self._at_once[1]

    @property
    def study_memo(self) -> Memo:
        """What the rules over studies that are in use now said of sealed series."""
        if self._study_memo is None or self._study_memo[0] is not self.rules:
            self._study_memo = self.rules, {}
        return self._study_memo[1]

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.node.data

    def refuses_identified(self, to: str, treatment: str = "") -> str:
        """Why what goes to *to* with this *treatment* may not be queued; empty where it may (promise 9)."""
        peer = self.settings.peers.get(to)
        if peer is None:
            return f"{to} is not among the peers any more"
        if peer.only != "deidentified" or is_deidentified(treatment):
            return ""
        return f"{to} takes only de-identified data, and the rule does not say deidentify:"

    def context(self, **about: Any) -> Context:
        """The clock and place that rules are judged in."""
        return Context(now=self.now(), timezone=self.settings.node.timezone, **about)


@dataclass(frozen=True, slots=True)
class Started:
    """One attempt of a run, ready for a worker."""

    run: int
    attempt: int
    folder: Path
    job: Job
