"""How the node's own code logs: constant names and listed keys, or the guard would drop what was meant."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import node
from node.ops.log import ALLOWED

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
SOURCES = sorted(Path(node.__file__).parent.rglob("*.py"))


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call such as `log.info(…)` with its place."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            function = call.func if isinstance(call, ast.Call) else None
            if isinstance(function, ast.Attribute) and function.attr in LEVELS:
                owner = function.value
                if isinstance(owner, ast.Name) and owner.id in {"log", "logger"}:
                    yield f"{path.name}:{call.lineno}", call


def test_every_logged_key_is_listed() -> None:
    """No call loses a key to the guard: each one is on the allow-list."""
    keys = [(place, keyword.arg) for place, call in calls() for keyword in call.keywords]
    assert len(keys) > 10
    assert [(place, key) for place, key in keys if key not in {*ALLOWED, "exc_info"}] == []


def test_no_message_is_formatted() -> None:
    """No call passes values as positional arguments, where no key could keep them out."""
    assert [place for place, call in calls() if len(call.args) != 1] == []
