"""The parts of a person's name as a value of PN spells them (PS3.5 6.2.1)."""

from __future__ import annotations

GROUPS = ("alphabetic", "ideographic", "phonetic")
COMPONENTS = ("family", "given", "middle", "prefix", "suffix")
PARTS = (*COMPONENTS, *(f"{group}.{part}" for group in GROUPS for part in COMPONENTS), *GROUPS)
"""How a part is named behind the keyword: `PatientName.family`, `PatientName.ideographic.given`."""


def part_of(name: str, part: str) -> str:
    """The text of one *part* of *name*; empty where it has none."""
    group, _, component = _place(part)
    groups = name.split("=")
    text = groups[group] if group < len(groups) else ""
    if not component:
        return text
    components = text.split("^")
    at = COMPONENTS.index(component)
    return components[at].strip() if at < len(components) else ""


def with_part(name: str, part: str, text: str) -> str:
    """*name* with *text* as one *part* of it, and no carets or equals signs that say nothing."""
    group, _, component = _place(part)
    groups = [*name.split("="), *[""] * 3][:3]
    if component:
        components = [*groups[group].split("^"), *[""] * 5][:5]
        components[COMPONENTS.index(component)] = text
        text = "^".join(components).rstrip("^")
    groups[group] = text
    return "=".join(groups).rstrip("=")


def _place(part: str) -> tuple[int, str, str]:
    """The component group, its name, and the component; no component for a whole group."""
    first, _, rest = part.partition(".")
    if first in GROUPS:
        return GROUPS.index(first), first, rest
    return 0, GROUPS[0], first
