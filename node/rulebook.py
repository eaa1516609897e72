"""The rules in use: read and proved at the start, kept for the next one, and what is said of those refused.

A set of rule files counts as a whole. It passes where `pacsnode check` would find no mistake and every `try:` case
went as expected; it is then written to the data folder, and whatever becomes of the files later, those rules stay
in use until another set passes (design §2.8). So it is at the start, and while the node runs (`rulewatch`).

A folder without any rule file is refused where rules are in use: an empty folder is far more often a volume that
is not mounted, or a deployment half done, than a wish, and every series of that time would go nowhere. Who wants
no rules leaves one file there that holds none (a comment is enough). On first start an empty folder is what it
seems: the node receives, and routes nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, insert

from node.errors import Misconfigured
from node.model import OperatorSpec
from node.route.check import prove
from node.route.rules import RULE_FILES, RuleSet, parse_rules, read_folder
from node.settings import NodeSettings
from node.store.database import Database, note
from node.store.files import Disk
from node.store.schema import meta
from node.store.watch import RULES_PROBLEM, rules_problem
from node.words import counted

_LAST_GOOD = "rules.json"
_NAMED = 10
"""Rules that one event names."""

Files = Mapping[str, str]
"""Shown name → text."""


def load(
    node: NodeSettings, specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]
) -> tuple[RuleSet, str]:
    """The rules in use after a start, and what is wrong with the ones in the folder.

    A set that does not pass leaves the last good one in use; on first start none at all.
    """
    try:
        files = read_folder(node.rules)
        refuse_none(files, bool(last_good(node.data)), node.rules)
        rules = prove(files, specs, peers)
    except Misconfigured as error:
        kept = last_good(node.data)
        try:
            return parse_rules(kept, specs, peers), str(error)
        except Misconfigured as older:
            both = f"{error}\nand the last good rules do not fit either: {older}"
            return parse_rules({}, specs, peers), both
    keep(node.data, files)
    return rules, ""


def refuse_none(files: Files, in_use: bool, folder: Path) -> None:
    """Raises Misconfigured where all files are gone and rules are *in_use*."""
    if in_use and not any(name.endswith(RULE_FILES) for name in files):
        raise Misconfigured(
            f"{folder}: there is no rule file any more, so the last rules stay in use; is the folder mounted? "
            "To have no rules, leave one file there that holds none"
        )


def last_good(data: Path) -> dict[str, str]:
    """The set that passed last; empty where none did, or where what was kept cannot be read."""
    try:
        found = json.loads((data / _LAST_GOOD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def keep(data: Path, files: Files) -> None:
    """Keep the rules that passed. A full disk is no reason not to work: it is by working that it gets emptier."""
    kept, text = data / _LAST_GOOD, json.dumps(dict(files)).encode()
    with contextlib.suppress(OSError):
        if not (kept.exists() and kept.read_bytes() == text):
            Disk().replace_file(kept, text)


def differs(node: NodeSettings) -> bool:
    """Whether the files in the folder are others than those that passed last."""
    try:
        return last_good(node.data) != read_folder(node.rules)
    except Misconfigured:
        return True


def remember(database: Database, problem: str, now: datetime) -> None:
    """What is wrong with the rule files, for `status`, `/readyz` and alerts; nothing is, where it is empty."""
    with database.write() as tx:
        tx.execute(delete(meta).where(meta.c.key == RULES_PROBLEM))
        if problem:
            tx.execute(insert(meta).values(key=RULES_PROBLEM, value=problem))
            note(tx, now, "rules_refused", problem)


def refuse(database: Database, problem: str, now: datetime) -> None:
    """The same of files that changed while the node runs: told once, however often they are looked at."""
    with database.read() as tx:
        known = rules_problem(tx)
    if problem != known:
        remember(database, problem, now)


def take(database: Database, words: str, now: datetime) -> None:
    """Other rules are in use from now on; *words* says which."""
    with database.write() as tx:
        tx.execute(delete(meta).where(meta.c.key == RULES_PROBLEM))
        note(tx, now, "rules_taken", words)


def difference(before: RuleSet, after: RuleSet) -> str:
    """What a new set changes, by the rules' names."""
    old, new = ({rule.name for rule in rules.rules} for rules in (before, after))
    changes = (("added", sorted(new - old)), ("removed", sorted(old - new)))
    parts = [f"{what} {_some(names)}" for what, names in changes if names]
    count = f"{counted(len(new), 'rule')} in use"
    return "; ".join([count, *parts]) if parts else f"{count}, by the same names"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
