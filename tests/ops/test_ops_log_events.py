"""Every event has a documented name: what the code says and what the tables list are the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import node
from node.ops import metrics
from node.ops.log_events import LOGGED, NOTED, markdown

NODE = Path(node.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(NODE.rglob("*.py"))
    if path.name != "log_events.py"
}
OPERATION = NODE.parent / "docs" / "operation.md"


def is_log(call: ast.Call) -> bool:
    """Whether a call is `log.info(…)` or one of its kind."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    return ast.unparse(function.value) in {"log", "structlog.get_logger()"}


def is_note(call: ast.Call) -> bool:
    """Whether a call is `note(tx, now, name, …)`."""
    return isinstance(call.func, ast.Name) and call.func.id == "note" and len(call.args) >= 3


def names_of(said: ast.expr, function: ast.AST) -> Iterator[str]:
    """Patterns of the names that an argument may be; none where another function says it."""
    match said:
        case ast.Constant(value=str(text)):
            yield re.escape(text)
        case ast.IfExp(body=one, orelse=other):
            yield from names_of(one, function)
            yield from names_of(other, function)
        case ast.BoolOp(values=values):
            for value in values:
                yield from names_of(value, function)
        case ast.JoinedStr(values=parts):
            yield "".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else "[a-z]+" for p in parts)
        case ast.Name(id=name):
            for value in assigned(name, function):
                yield from names_of(value, function)


def assigned(name: str, function: ast.AST) -> Iterator[ast.expr]:
    """What a function assigns to a name of its own, alone or in a tuple."""
    for found in ast.walk(function):
        for target in found.targets if isinstance(found, ast.Assign) else ():
            if isinstance(target, ast.Name) and target.id == name:
                yield found.value  # type: ignore[attr-defined]
            elif isinstance(target, ast.Tuple) and isinstance(found.value, ast.Tuple):  # type: ignore[attr-defined]
                pairs = zip(target.elts, found.value.elts, strict=True)  # type: ignore[attr-defined]
                yield from (value for one, value in pairs if isinstance(one, ast.Name) and one.id == name)


def said(kind: str) -> list[tuple[str, str]]:
    """(place, pattern of the name) of every event of a kind that the code leaves."""
    wanted = is_log if kind == "log" else is_note
    found = []
    for path, tree in TREES.items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and wanted(call):
                    argument = call.args[0 if kind == "log" else 2]
                    place = f"{path.relative_to(NODE)}:{call.lineno}"
                    found += [(place, pattern) for pattern in names_of(argument, function) if pattern]
    return found


@pytest.mark.parametrize(("kind", "table"), [("log", LOGGED), ("note", NOTED)])
def test_every_event_is_documented(kind: str, table: dict[str, str]) -> None:
    """Each name that is logged or noted stands in its table; one that is put together fits names there."""
    events = said(kind)
    assert len(events) > 25
    unknown = [e for e in events if not any(re.fullmatch(e[1], name) for name in table)]
    assert unknown == []


@pytest.mark.parametrize(("kind", "table"), [("log", LOGGED), ("note", NOTED)])
def test_every_documented_event_is_left_by_someone(kind: str, table: dict[str, str]) -> None:
    """A name that no code says any more leaves the table."""
    patterns = {pattern for _, pattern in said(kind)}
    words = {
        c.value
        for t in TREES.values()
        for c in ast.walk(t)
        if isinstance(c, ast.Constant) and c.value in table
    }
    silent = [n for n in table if n not in words and not any(re.fullmatch(p, n) for p in patterns)]
    assert silent == []


def test_the_database_takes_every_name() -> None:
    """Names fit the column of the event table, and each has a sentence of its own."""
    assert max(map(len, NOTED)) <= 40
    for table in (LOGGED, NOTED):
        assert all(sentence.endswith(".") and len(sentence) > 15 for sentence in table.values())


@pytest.mark.parametrize("table", [markdown(LOGGED), markdown(NOTED), metrics.markdown()])
def test_the_documentation_lists_them(table: str) -> None:
    """`docs/operation.md` holds the tables of the program word for word."""
    assert table in OPERATION.read_text(encoding="utf-8")
