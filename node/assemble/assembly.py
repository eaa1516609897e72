"""The series that are still open, in memory: their objects' facts and what carried them.

Written to the database when a series is sealed; after a restart the reader's headers of the same
files rebuild it, and the quiet times begin again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from node.assemble.claims import Claims, Named
from node.assemble.completeness import Carrier, Ended, Evidence, Policy
from node.facts import Facts, Gathering
from node.model import Cell, Header


@dataclass
class OpenSeries:
    """One receiving revision: its members in the order they came."""

    id: int
    peer: str
    members: dict[int, Mapping[str, Cell]] = field(default_factory=dict)
    """Instance id → attributes."""
    continues: bool = False
    """It began with the members of an earlier revision."""
    carriers: dict[str, int] = field(default_factory=dict)
    """Association → how many objects of this series it brought."""
    opened: float = 0.0
    """Monotonic seconds of the first."""
    last: float = 0.0
    """Monotonic seconds of the last object."""
    policy: Policy | None = None
    """How it is sealed, once that was looked up."""
    claims: Claims = field(default_factory=Claims)
    """What others say belongs to it."""
    told: set[str] = field(default_factory=set)
    """What was said of it while it waits, each once."""

    gathering: Gathering | None = None
    """The facts of the members so far, once one came."""
    replaced: bool = False
    """A member was replaced: the facts are gathered anew when they are asked for, not for each of a thousand."""

    def facts(self) -> Facts:
        """Facts over all members."""
        return (self.gathering or Gathering(self.members.values())).facts()

    def add(self, instance_id: int, attributes: Mapping[str, Cell]) -> None:
        """One more member; its facts are gathered now, so that little is left to do when the last one came."""
        if instance_id in self.members:
            self.drop(instance_id)
        if self.gathering is None and not self.replaced:
            self.gathering = Gathering(self.members.values())
        self.members[instance_id] = attributes
        if self.gathering is not None:
            self.gathering.add(attributes)

    def drop(self, instance_id: int) -> None:
        """One member less."""
        if self.members.pop(instance_id, None) is not None:
            self.gathering, self.replaced = None, True


@dataclass
class Assembly:
    """Every open series, and the associations that are over."""

    series: dict[int, OpenSeries] = field(default_factory=dict)
    ended: dict[str, tuple[Ended, float]] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)
    """Peers known to use several associations for one series."""
    by_uids: dict[tuple[str, str], int] = field(default_factory=dict)
    """Study and Series Instance UID → the open revision, so that the tables are asked once per series."""

    def open_as(self, study_uid: str, series_uid: str) -> int | None:
        """The open revision of a series, None where it is not known to be open."""
        found = self.by_uids.get((study_uid, series_uid))
        return found if found in self.series else None

    def known_as(self, study_uid: str, series_uid: str, series_id: int) -> int:
        """Remember under which UIDs an open revision is; returns it."""
        self.by_uids[study_uid, series_uid] = series_id
        return series_id

    def begin(self, series_id: int, peer: str, members: Mapping[int, Mapping[str, Cell]]) -> None:
        """Open a revision that starts with the members of the one before."""
        self.series.setdefault(series_id, OpenSeries(series_id, peer, dict(members), bool(members)))

    def add(
        self, series_id: int, instance_id: int, header: Header, now: float, *, late: bool = False
    ) -> None:
        """One more object; *late*: new to the series, so that a revision before was sealed too early."""
        found = self.series[series_id]
        found.add(instance_id, header.attributes)
        found.carriers[header.association] = found.carriers.get(header.association, 0) + 1
        found.opened = found.opened or now
        found.last = now
        found.claims.came(header.sop_uid)
        if len(found.carriers) > 1 or (late and found.continues):
            self.several.add(found.peer)

    def names(self, series_id: int, step: int, peer: str, objects: frozenset[str], here: set[str]) -> None:
        """A completed step of *peer* names the *objects* of a series, of which those in *here* have come."""
        named = Named(peer, objects, set(objects - here))
        self.series[series_id].claims.named[step] = named

    def drop(self, series_id: int, instance_id: int) -> None:
        """An object that a newer header replaced."""
        self.series[series_id].drop(instance_id)

    def end(self, association: str, aborted: bool, now: float) -> None:
        """An association is over; remembered while an open series was carried by it."""
        if any(association in s.carriers for s in self.series.values()):
            self.ended[association] = (Ended.ABORTED if aborted else Ended.RELEASED, now)

    def evidence(self, series_id: int, now: float) -> Evidence:
        """What speaks for completeness now."""
        found = self.series[series_id]
        carriers = []
        for association, objects in islice(found.carriers.items(), 2):  # a third one says no more
            ended, at = self.ended.get(association, (Ended.OPEN, now))
            carriers.append(Carrier(objects, ended, timedelta(seconds=now - at)))
        said, here = found.claims, len(found.members)
        return Evidence(
            timedelta(seconds=now - found.last), carriers, found.peer in self.several,
            said.now(found.peer, here, found.last), said.count is not None and said.count.pending(found.last),
            said.words,
        )  # fmt: skip

    def close(self, series_id: int) -> OpenSeries:
        """Take a series out, sealed."""
        found = self.series.pop(series_id)
        self.by_uids = {uids: known for uids, known in self.by_uids.items() if known != series_id}
        still = {a for s in self.series.values() for a in s.carriers}
        self.ended = {a: e for a, e in self.ended.items() if a in still}
        return found
