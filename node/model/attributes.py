"""What an attribute says, as text, and coded concepts."""

from __future__ import annotations

from dataclasses import dataclass

Value = tuple[str, ...]
"""One attribute as text: its values in order; `()` is present but empty (PS3.5 6.2, 6.4)."""
Cell = tuple[Value, ...]
"""The distinct values one instance holds for an attribute: one, or several over its frames."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str
