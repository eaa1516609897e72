"""Rule files → frozen rules; every mistake of every file at once, with file, line and column."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.errors import Misconfigured
from node.model import OperatorSpec
from node.route.cautions import cautions
from node.route.rule import Rule
from node.route.rule_reading import RuleReader
from node.route.sends import Send
from node.route.tables import SUFFIX, Tables
from node.route.together import check_together
from node.route.when import When
from node.route.when_reading import parse_when
from node.shape import Shaper, parse, read
from node.yamltext import MOST_BYTES

__all__ = [
    "Rule",
    "RuleSet",
    "Send",
    "When",
    "digest_of",
    "parse_rules",
    "parse_when",
    "read_file",
    "read_folder",
    "read_rules",
    "scan_folder",
]


_MOST_TABLE = 20_000_000
"""Bytes of a table: 200 000 rows."""
RULE_FILES = (".yaml", ".yml")
"""How names of rule files end."""


@dataclass(frozen=True)
class RuleSet:
    """All rules that passed together."""

    rules: tuple[Rule, ...]
    digest: str
    """SHA-256 over the files' names and texts."""
    warnings: tuple[str, ...] = ()
    lookups: Mapping[str, str] = field(default_factory=dict)
    """Digest → the table as JSON, of those that treatments look values up in."""

    @property
    def of_studies(self) -> tuple[Rule, ...]:
        """The rules of `scope: study`."""
        return tuple(rule for rule in self.rules if rule.study is not None)


def read_folder(folder: Path) -> dict[str, str]:
    """Shown name → text of each *.yaml, *.yml and *.csv file. Raises Misconfigured with every file it cannot read."""
    found, mistakes = scan_folder(folder)
    if mistakes:
        raise Misconfigured(*mistakes)
    return found


def scan_folder(folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Shown name → text of each *.yaml, *.yml and *.csv file that can be read, and a sentence for each that cannot.

    Raises Misconfigured where there is no such folder, or where it cannot be listed.
    """
    found: dict[str, str] = {}
    mistakes: list[str] = []
    try:
        if folder.is_file():
            return read_file(folder, folder.name), ()
        paths = _rule_files(folder)
    except OSError as error:  # no permission, a network folder that went away
        raise Misconfigured(
            f"{folder}: cannot be read: {error.strerror}; give the node's user read and search permission, "
            "or correct node: rules: in the site file"
        ) from None
    for path in paths:
        try:
            found[f"{folder.name}/{path.name}"] = read(
                path, str(path), _MOST_TABLE if path.suffix == SUFFIX else MOST_BYTES
            )
        except Misconfigured as error:
            mistakes.extend(error.mistakes)
    return found, tuple(mistakes)


def _rule_files(folder: Path) -> list[Path]:
    """The rule files and tables in *folder*, by name. Raises OSError, and Misconfigured where it is no folder."""
    if not folder.is_dir():
        raise Misconfigured(
            f"{folder}: there is no such folder; make it, or correct node: rules: in the site file"
        )
    suffixes = (*RULE_FILES, SUFFIX)
    return sorted(p for p in folder.iterdir() if p.suffix in suffixes and not p.name.startswith("."))


def read_file(file: Path, shown: str) -> dict[str, str]:
    """One rule file under its *shown* name, with the tables beside it that it names. Raises Misconfigured."""
    text, found = read(file, shown), {}
    for path in sorted(file.parent.glob(f"*{SUFFIX}")):
        if path.name in text:
            found[str(Path(shown).parent / path.name)] = read(path, str(path), _MOST_TABLE)
    return {shown: text, **found}


def parse_rules(
    files: Mapping[str, str], specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]
) -> RuleSet:
    """Shown name → text of each rule file → checked rules. Raises Misconfigured with all mistakes.

    *peers* says of each name in the site file whether it can receive (has an address).
    """
    found, mistakes, warnings = read_rules(files, specs, peers)
    if mistakes:
        raise Misconfigured(*mistakes)
    lookups = {
        name: text for rule in found for send in rule.sends for name, text in send.edits.lookups.items()
    }
    return RuleSet(found, digest_of(files), warnings, lookups)


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over names and texts: what tells one set of rule files from another."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def read_rules(
    files: Mapping[str, str], specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]
) -> tuple[tuple[Rule, ...], tuple[str, ...], tuple[str, ...]]:
    """The rules without mistakes, every mistake, and every warning."""
    shaper = Shaper()
    rules: list[Rule] = []
    sound: list[Rule] = []
    tables = Tables({name: text for name, text in files.items() if name.endswith(SUFFIX)})
    for file in sorted(set(files) - set(tables.files)):
        try:
            documents = parse(files[file], file)
        except Misconfigured as error:
            shaper.mistakes.extend(error.mistakes)
            continue
        for node in documents:
            before = len(shaper.mistakes)
            rule = RuleReader(node, specs, peers, tables, shaper).rule()
            rules.append(rule)
            sound += [rule] if len(shaper.mistakes) == before else []
    check_together(rules, shaper)
    unused = tuple(f"{name}:1: no rule uses this table" for name in tables.unused())
    return tuple(sound), tuple(_by_place(shaper.mistakes)), (*cautions(sound, peers), *unused)


def _by_place(mistakes: Sequence[str]) -> list[str]:
    def place(mistake: str) -> tuple[str, int, int]:
        match = re.match(r"(.*?):(\d+)(?::(\d+))?: ", mistake)
        return (match[1], int(match[2]), int(match[3] or 0)) if match else (mistake, 0, 0)

    return sorted(dict.fromkeys(mistakes), key=place)
