"""What is left of a sealed revision: without what was rejected since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from node.assemble.completeness import gaps
from node.facts import Facts
from node.model import InstanceState
from node.store import intake


def left(tx: Connection, row: Mapping[str, Any]) -> tuple[tuple[int, ...], Facts, str]:
    """Members, facts and gaps of a revision without what was rejected since it was sealed."""
    members, facts = intake.members_and_facts(tx, row["id"])
    rejected = {i["id"] for i in intake.instances_of(tx, members) if i["state"] == InstanceState.REJECTED}
    return without(members, facts, rejected, row["incomplete"])


def without(
    members: tuple[int, ...], facts: Facts, gone: set[int], incomplete: str
) -> tuple[tuple[int, ...], Facts, str]:
    """Members, facts and gaps without those that are gone."""
    if gone.isdisjoint(members):
        return members, facts, incomplete
    places = [place for place, key in enumerate(members) if key not in gone]
    facts = facts.only(places)
    return tuple(members[place] for place in places), facts, gaps(facts) or incomplete
