"""YAML text → nodes with places. Never typed by YAML itself, and bounded whatever the text is.

The tree is built from the parser's events one by one: nothing recurses, so a text that nests without end or
whose aliases multiply is refused where that begins, before it costs time or memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from node.errors import Misconfigured

MOST_BYTES = 1_000_000
"""Of one file; 200 rules with their cases are 400 kB."""
_MOST_NODES = 100_000
"""Of one document, aliases counted as what they stand for."""
_DEEPEST = 40
"""Levels; a rule needs about eight."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in a file; prints as `file:line:column`, without a column that is not known."""

    file: str
    line: int
    column: int = 0
    """From 1; 0 where only the line is known."""

    def __str__(self) -> str:
        return f"{self.of_line}:{self.column}" if self.column else self.of_line

    @property
    def of_line(self) -> str:
        """`file:line`: for what has a line to itself, as a rule does."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Node:
    """One YAML value with its place: text, a list, or a mapping in the order it was written."""

    place: Place
    value: str | tuple[Node, ...] | dict[str, Node]
    quoted: bool = False
    """The user put quotes around the text."""

    @property
    def is_text(self) -> bool:
        """A scalar."""
        return isinstance(self.value, str)

    @property
    def is_list(self) -> bool:
        """A sequence."""
        return isinstance(self.value, tuple)

    @property
    def is_mapping(self) -> bool:
        """A mapping."""
        return isinstance(self.value, dict)

    @property
    def text(self) -> str:
        """The scalar's text; an empty one for anything else."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def items(self) -> tuple[Node, ...]:
        """The list's items; a single value stands for a list of one."""
        return self.value if isinstance(self.value, tuple) else (self,)

    @property
    def fields(self) -> dict[str, Node]:
        """The mapping's entries; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The same value as nested dicts, lists and texts, without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


def walk(node: Node) -> Iterator[Node]:
    """*node* and everything below it."""
    yield node
    children = node.value.values() if isinstance(node.value, dict) else node.items if node.is_list else ()
    for child in children:
        yield from walk(child)


def too_long(name: str, size: int, most: int = MOST_BYTES) -> str:
    """Why a file of so many bytes is not read."""
    return (
        f"{name}:1:1: the file has {size / 1e6:.1f} MB, and {most / 1e6:.0f} MB is the most; "
        "is it what people wrote? Divide it into several files"
    )


def load(path: Path, shown: str | None = None) -> list[Node]:
    """Every YAML document of a file; *shown* is how messages name it. Raises Misconfigured."""
    name = shown or str(path)
    return parse(read(path, name), name)


def read(path: Path, name: str, most: int = MOST_BYTES) -> str:
    """The text of a file that people wrote. Raises Misconfigured where it cannot be, or has more than *most* bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise Misconfigured(too_long(name, path.stat().st_size, most))
        return data.decode("utf-8-sig")
    except OSError as error:
        raise Misconfigured(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line, column = _position(error.object[: error.start].decode("utf-8-sig"))
        raise Misconfigured(f"{name}:{line}:{column}: not UTF-8 text; save the file as UTF-8") from None


def parse(text: str, file: str) -> list[Node]:
    """Every YAML document in *text*. Raises Misconfigured where the text is not YAML, or more than people write."""
    if len(text) > MOST_BYTES:
        raise Misconfigured(too_long(file, len(text)))
    composer = _Composer(file)
    try:
        for event in YAML(typ="rt", pure=True).parse(text):
            composer.take(event)
    except ReaderError as error:
        line, column = _position(text[: error.position])
        raise Misconfigured(
            f"{file}:{line}:{column}: not valid YAML: the character #x{ord(text[error.position]):04X} "
            "cannot stand in a text"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise Misconfigured(f"{file}:{line}:{column}: not valid YAML: {_problem(error)}") from None
    except (YAMLError, ValueError) as error:
        raise Misconfigured(f"{file}:1:1: not valid YAML: {error}") from None
    return composer.documents


def _problem(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if r"'\t'" in problem:
        return "a tab; indent with blanks"
    if "mapping values are not allowed" in problem:
        return f"{problem}; put quotes around a text that holds a colon"
    return problem


def _written(scalar: ScalarEvent) -> str:
    """The text of a scalar; in a folded one the parser marks with a BEL where lines were folded."""
    return str(scalar.value).replace("\a", "") if scalar.style == ">" else str(scalar.value)


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@dataclass(slots=True)
class _Open:
    """A list or mapping that has not ended."""

    place: Place
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    fields: dict[str, Node] | None = None
    """None for a list."""
    key: tuple[str, Place] | None = None
    """The key whose value comes next."""
    size: int = 1


class _Composer:
    """Events in, documents out."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[Node] = []
        self.open: list[_Open] = []
        self.anchored: dict[str, tuple[Node, int]] = {}

    def take(self, event: Any) -> None:
        """One event of the parser. Raises Misconfigured."""
        if isinstance(event, DocumentStartEvent):
            self.anchored = {}
        elif isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, ScalarEvent):
            self._refuse_tag(event)
            node = Node(self._place(event), _written(event), event.style in ("'", '"'))
            self._add(node, event.anchor, 1)
        elif isinstance(event, (SequenceStartEvent, MappingStartEvent)):
            self._begin(event)
        elif isinstance(event, (SequenceEndEvent, MappingEndEvent)):
            self._end()

    def _place(self, event: Any) -> Place:
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _wrong(self, event_or_place: Any, what: str) -> Misconfigured:
        place = event_or_place if isinstance(event_or_place, Place) else self._place(event_or_place)
        return Misconfigured(f"{place}: {what}")

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            raise self._wrong(event, f"the tag {event.tag} means nothing here; write the value alone")

    def _alias(self, event: Any) -> None:
        if any(one.anchor == event.anchor for one in self.open):
            raise self._wrong(event, f"the alias *{event.anchor} refers to what it stands in")
        if event.anchor not in self.anchored:
            raise self._wrong(event, f"nothing is anchored as &{event.anchor} before this alias")
        node, size = self.anchored[event.anchor]
        self._add(node, None, size, event)

    def _begin(self, event: Any) -> None:
        self._refuse_tag(event)
        if self.open and self.open[-1].fields is not None and self.open[-1].key is None:
            raise self._wrong(event, "a key must be a word")
        if len(self.open) >= _DEEPEST:
            raise self._wrong(event, f"nested too deeply: {_DEEPEST} levels are the most")
        mapping = isinstance(event, MappingStartEvent)
        self.open.append(_Open(self._place(event), event.anchor, fields={} if mapping else None))

    def _end(self) -> None:
        done = self.open.pop()
        node = Node(done.place, done.fields if done.fields is not None else tuple(done.items))
        self._add(node, done.anchor, done.size)

    def _add(self, node: Node, anchor: str | None, size: int, alias: Any = None) -> None:
        """A finished value goes where it stands."""
        if anchor:
            self.anchored[anchor] = node, size
        if not self.open:
            self.documents.append(node)
            return
        into = self.open[-1]
        into.size += size
        if into.size > _MOST_NODES:
            raise self._wrong(
                alias or node.place, f"more than {_MOST_NODES} values, aliases counted as written out"
            )
        if into.fields is None:
            into.items.append(node)
        elif into.key is None:
            into.key = self._key(into, node, alias)
        else:
            name, place = into.key
            into.fields[name] = Node(place, node.value, node.quoted)
            into.key = None

    def _key(self, into: _Open, node: Node, alias: Any) -> tuple[str, Place]:
        place = self._place(alias) if alias else node.place
        if not node.is_text:
            raise self._wrong(place, "a key must be a word")
        if node.text == "<<" and not node.quoted:
            raise self._wrong(
                place, "merge keys (<<) are not available; write the lines out, or use an alias for a value"
            )
        if node.text in (into.fields or {}):
            raise self._wrong(place, f"{node.text} is given twice")
        return node.text, place
