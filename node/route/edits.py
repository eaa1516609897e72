"""`edit:` lists → the changes as they stand in a delivery's treatment, each checked against the standard."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.route.editable import NUMBERS, Target, refusal, target_of
from node.route.tables import SUFFIX, Tables, digest_of
from node.shape import Node, Shaper
from node.vr import TEXT_VRS, length_defect, text_defect

Change = dict[str, Any]

OPERATIONS = {
    "set": "Keyword: a text, in which {Keyword} stands for what the object says, {PatientName.family} for a part",
    "copy": "{from: Keyword, to: Keyword}: the values of one attribute into another; nothing where it is empty",
    "prefix": "Keyword: a text put before each value; nothing where it is empty",
    "map": "Keyword: a table, {old: new} or a .csv file beside the rule, and else: refuse, keep or empty",
    "remove": "a list of keywords; what the standard demands (type 2) is emptied instead",
    "reason": "COERCE (the default: another site's values) or CORRECT (the values were wrong)",
}
"""Every key of an entry under `edit:`, with a sentence for editors."""
ELSE = ("refuse", "keep", "empty")
REASONS = ("COERCE", "CORRECT")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Edits:
    """What an `edit:` asks for."""

    changes: tuple[Change, ...] = ()
    reason: str = ""
    lookups: Mapping[str, str] = field(default_factory=dict)
    """Digest → text of the tables that are not written out in the rule."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Keyword that is changed → the line that does."""

    def then(self, other: Edits) -> Edits:
        """These changes, and then those of *other*."""
        return Edits(
            self.changes + other.changes, other.reason or self.reason,
            {**self.lookups, **other.lookups}, {**self.lines, **other.lines},
        )  # fmt: skip

    def treatment(self) -> dict[str, Any]:
        """Its part of a delivery's treatment; empty where nothing is changed."""
        if not self.changes:
            return {}
        edit = {"changes": list(self.changes), "reason": self.reason or REASONS[0]}
        return {"edit": edit, **({"lookups": sorted(self.lookups)} if self.lookups else {})}


NO_EDITS = Edits()


def parse_edits(node: Node, tables: Tables, shaper: Shaper) -> Edits:
    """The changes under `edit:` in their order; mistakes are noted in *shaper*."""
    if not node.is_list or not node.items:
        shaper.wrong(node, "edit holds a list, for example edit: [{prefix: {PatientID: H2-}}]")
        return NO_EDITS
    reader = _Reader(tables, shaper)
    for item in node.items:
        reader.entry(item)
    if not reader.changes and not shaper.mistakes:
        shaper.wrong(node, "edit changes nothing; add set, copy, prefix, map or remove")
    return Edits(tuple(reader.changes), reader.reason, reader.lookups, reader.lines)


@dataclass
class _Reader:
    """Reads the entries of one `edit:`."""

    tables: Tables
    shaper: Shaper
    changes: list[Change] = field(default_factory=list)
    reason: str = ""
    lookups: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def entry(self, node: Node) -> None:
        fields = self.shaper.fields(node, tuple(OPERATIONS))
        if len(fields) > 1:
            self.shaper.wrong(
                node, f"one change for each entry; {' and '.join(fields)} are two: they go in order"
            )
        for key, value in fields.items():
            readers: dict[str, Callable[[Node], None]] = {
                "set": self._set, "copy": self._copy, "prefix": self._prefix, "map": self._map,
                "remove": self._remove, "reason": self._reason,
            }  # fmt: skip
            readers[key](value)

    def _set(self, node: Node) -> None:
        for name, value in self._each(node, "{InstitutionName: City Hospital}"):
            target = self._target(name, value)
            text = self._text(value, may_be_empty=True)
            if target is not None and text is not None and self._template(target, text, value):
                self._add(value, target, op="set", value=text)

    def _copy(self, node: Node) -> None:
        fields = self.shaper.fields(node, ("from", "to"), ("from", "to"))
        if set(fields) != {"from", "to"}:
            return
        source = self._known(self.shaper.text(fields["from"]), fields["from"])
        target = self._target(self.shaper.text(fields["to"]), fields["to"])
        if source is None or target is None:
            return
        if source.vr not in TEXT_VRS | NUMBERS:
            self.shaper.wrong(fields["from"], f"{source.path} has no text or number that could be copied")
            return
        self._add(node, target, op="copy", **{"from": source.path, "from_part": source.part})

    def _prefix(self, node: Node) -> None:
        for name, value in self._each(node, "{PatientID: H2-}"):
            target = self._target(name, value)
            text = self._text(value)
            if target is None or text is None:
                continue
            wrong = length_defect(target.vr, text) if target.vr in TEXT_VRS else "is a number"
            if wrong or target.vr in ("DA", "TM", "DT", "AS"):
                self.shaper.wrong(
                    value, f"prefix: {name} {wrong or 'is a date or time, which has no prefix'}"
                )
            else:
                self._add(value, target, op="prefix", text=text)

    def _map(self, node: Node) -> None:
        if not node.is_mapping:
            self.shaper.wrong(node, "expected a mapping such as {BodyPartExamined: parts.csv, else: keep}")
            return
        other = "refuse"
        if "else" in node.fields:
            other = self.shaper.choice(node.fields["else"], ELSE, other)
        named = {name: value for name, value in node.fields.items() if name != "else"}
        if not named:
            self.shaper.wrong(node, "map names no attribute; for example {BodyPartExamined: parts.csv}")
        for name, value in named.items():
            target = self._target(name, value)
            if target is None:
                continue
            found = self._inline(value, target) if value.is_mapping else self._file(value, target)
            if found:
                self._add(value, target, op="map", **{"else": other, **found})

    def _inline(self, node: Node, target: Target) -> dict[str, Any]:
        table = {key.strip(): value.text.strip() for key, value in node.fields.items()}
        if not all(value.is_text for value in node.fields.values()) or not table:
            self.shaper.wrong(node, "a table holds texts, as {CHST: CHEST}")
            return {}
        for value in node.fields.values():
            self._fits(target, value.text.strip(), value)
        return {"table": table, "name": "of the rule"}

    def _file(self, node: Node, target: Target) -> dict[str, Any]:
        name = self.shaper.text(node)
        if not name.endswith(SUFFIX) or "/" in name or "\\" in name:
            self.shaper.wrong(
                node, f"expected a table {{old: new}}, or a {SUFFIX} file beside the rule, found {name!r}"
            )
            return {}
        before = len(self.shaper.mistakes)
        table = self.tables.read(node, self.shaper)
        for value in table.values():
            if wrong := self._defect(target, value):
                self.shaper.wrong(node, f"{name}: {value} {wrong}, so {target.path} cannot hold it")
        if len(self.shaper.mistakes) > before or not table:
            return {}
        digest, text = digest_of(table)
        self.lookups[digest] = text
        return {"lookup": digest, "name": name}

    def _remove(self, node: Node) -> None:
        if node.is_mapping or not node.items:
            self.shaper.wrong(node, "remove holds a list of keywords, as [PatientComments]")
            return
        for item in node.items:
            name = self.shaper.text(item)
            target = self._target(name, item, whole=True) if name else None
            if target is not None:
                self._add(item, target, op="remove")

    def _reason(self, node: Node) -> None:
        self.reason = self.shaper.choice(node, REASONS)

    # --- pieces

    def _each(self, node: Node, example: str) -> Sequence[tuple[str, Node]]:
        if not node.is_mapping or not node.fields:
            self.shaper.wrong(node, f"expected a mapping such as {example}")
        return list(node.fields.items())

    def _known(self, name: str, node: Node) -> Target | None:
        try:
            return target_of(name) if name else None
        except ValueError as error:
            self.shaper.wrong(node, f"edit: {error}")
            return None

    def _target(self, name: str, node: Node, *, whole: bool = False) -> Target | None:
        target = self._known(name, node)
        why = refusal(target, whole=whole) if target is not None else ""
        if why:
            self.shaper.wrong(node, f"edit: {why}")
        return None if why else target

    def _text(self, node: Node, *, may_be_empty: bool = False) -> str | None:
        if node.is_text and not node.text.strip() and node.quoted and may_be_empty:
            return ""
        before = len(self.shaper.mistakes)
        text = self.shaper.text(node)
        return text if len(self.shaper.mistakes) == before else None

    def _template(self, target: Target, text: str, node: Node) -> bool:
        """Whether *text* is one; what is written out in it is checked as far as that goes."""
        before = len(self.shaper.mistakes)
        for name in _BRACES.findall(text):
            source = self._known(name, node)
            if source is not None and ("." in source.path or source.vr not in TEXT_VRS | NUMBERS):
                self.shaper.wrong(
                    node, f"edit: braces hold a keyword with a value, as {{Modality}}, not {name}"
                )
        plain = _BRACES.sub("", text)
        if set("{}") & set(plain):
            self.shaper.wrong(node, "edit: braces come in pairs and hold one DICOM keyword, as {PatientID}")
        elif plain == text:
            self._fits(target, text, node)
        elif target.vr in TEXT_VRS and (wrong := length_defect(target.vr, plain)):
            self.shaper.wrong(node, f"edit: {target.path} {wrong}, before anything is filled in")
        return len(self.shaper.mistakes) == before

    def _fits(self, target: Target, text: str, node: Node) -> None:
        if wrong := self._defect(target, text):
            self.shaper.wrong(node, f"edit: {text} {wrong}, so {target.path} cannot hold it")

    def _defect(self, target: Target, text: str) -> str:
        if not text:
            return ""
        if target.part:
            return (
                "has ^, = or \\, which part the name"
                if set("^=\\") & set(text)
                else length_defect("PN", text)
            )
        if target.vr in NUMBERS:
            return "" if _is_number(text, target.vr) else f"is no number that {target.vr} allows"
        if target.vr not in ("LO", "LT", "PN", "SH", "ST", "UC", "UT") and not text.isascii():
            return f"has characters beyond ASCII, which {target.vr} does not allow"
        return text_defect(target.tag, target.vr, text)

    def _add(self, node: Node, target: Target, **change: Any) -> None:
        self.lines.setdefault(target.path, node.place.line)
        part = {"part": target.part} if target.part else {}
        self.changes.append({**change, "path": target.path, **part})


def _is_number(text: str, vr: str) -> bool:
    try:
        return bool(float(text) == float(text)) if vr in ("FL", "FD") else int(text) is not None
    except ValueError:
        return False
