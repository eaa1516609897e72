"""What `when`, `use` and `seal` blocks ask: lines, groups of them, and what a line may ask of its attribute. Frozen."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from node.route.conditions import Condition
from node.route.keywords import Attribute

OPERATORS = {
    "one_of": "one of these values",
    "not": "any value but this; an absent tag does not fit",
    "matches": "a pattern with * and ?, or a list of them",
    "at_least": "this much or more",
    "at_most": "this much or less",
    "between": "two values, both included",
    "present": "the tag is there and not empty",
    "absent": "the tag is missing or empty",
    "has_all": "a multi-valued tag with every one of these",
    "has_any": "a multi-valued tag with at least one of these",
    "excludes": "a multi-valued tag with none of these",
    "some": "at least one image fits; without it every image must",
    "any_of": "one of these conditions",
    "none_of": "none of these conditions; an absent tag fits",
}
"""What may be asked of an attribute, with a sentence for editors."""


@dataclass(frozen=True, slots=True)
class Line:
    """One attribute and what is asked of it."""

    attribute: Attribute
    condition: Condition
    text: str
    """As the user wrote it."""
    line: int
    column: int = 0

    @property
    def name(self) -> str:
        """The attribute's name."""
        return self.attribute.name

    def key(self) -> Hashable:
        """The same for the same question, wherever it stands."""
        return self.attribute.name, self.condition

    def canonical(self) -> str:
        """The same text for the same meaning."""
        return f"{self.name}:{self.condition.canonical()}"


@dataclass(frozen=True, slots=True)
class Group:
    """`any_of` or `none_of` over whole blocks."""

    name: str
    blocks: tuple[When, ...]
    text: str
    line: int
    column: int = 0

    def key(self) -> Hashable:
        """The same for the same question, wherever it stands."""
        return self.name, tuple([block.key() for block in self.blocks])

    def canonical(self) -> str:
        """The same text for the same meaning."""
        return f"{self.name}:({'|'.join(sorted(block.canonical() for block in self.blocks))})"


@dataclass(frozen=True, slots=True)
class When:
    """A block in which every line must hold; without lines it always holds."""

    lines: tuple[Line | Group, ...] = ()

    def conditions(self) -> Iterator[Line]:
        """Every line about one attribute, also those inside groups."""
        for line in self.lines:
            if isinstance(line, Line):
                yield line
            else:
                for block in line.blocks:
                    yield from block.conditions()

    def key(self) -> Hashable:
        """The same for the same questions, wherever they stand."""
        return tuple([line.key() for line in self.lines])

    def names(self) -> frozenset[str]:
        """Every attribute it asks for."""
        return frozenset(line.name for line in self.conditions())

    def canonical(self) -> str:
        """The same text for the same meaning: order, spelling and units do not count."""
        return "\n".join(sorted(line.canonical() for line in self.lines))
