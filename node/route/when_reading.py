"""`when`, `use` and `seal` blocks: YAML nodes → conditions, every mistake with its place."""

from __future__ import annotations

from datetime import time

from node.route.conditions import Condition, Test
from node.route.keywords import OURS, Attribute, lookup
from node.route.values import ORDERED, Comparable, Kind, order, squeeze, written
from node.route.when import OPERATORS, Group, Line, When
from node.shape import Node, Shaper, nearest

_INSTEAD = {
    "contains": "contains could mean several things: write has_all (every one), has_any (at least one) or "
    'excludes (none); for a piece of a text write matches: "*piece*"',
    "equals": "write the value alone, without equals",
    "in": "write one_of",
    "is": "write the value alone, without is",
    "min": "write at_least",
    "max": "write at_most",
    "regex": "regular expressions are not available; write matches with * and ?",
    "and": "several conditions in one mapping must all hold; no and is needed",
    "or": "write any_of",
}
_MULTI = ("has_all", "has_any", "excludes")


def parse_when(node: Node, shaper: Shaper) -> When:
    """The conditions under `when:` or `use:`; mistakes are noted in *shaper*."""
    if not node.is_mapping:
        shaper.wrong(node, "expected conditions such as {Modality: CT}; {} stands for every image")
        return When()
    lines: list[Line | Group] = []
    for key, value in node.fields.items():
        if key in ("any_of", "none_of"):
            lines.append(_group(key, value, shaper))
            continue
        attribute = _attribute(key, value, shaper)
        if attribute is not None:
            condition = _Reader(attribute, shaper).condition(value)
            text = f"{key}: {flow(value)}"
            lines.append(Line(attribute, condition, text, value.place.line, value.place.column))
    return When(tuple(lines))


def _group(op: str, node: Node, shaper: Shaper) -> Group:
    if not node.is_list or not node.items:
        shaper.wrong(node, f"{op} holds a list of conditions, for example {op}: [{{Modality: CT}}]")
        return Group(op, (), "", node.place.line, node.place.column)
    blocks = tuple(parse_when(item, shaper) for item in node.items)
    for item, block in zip(node.items, blocks, strict=True):
        if item.is_mapping and not item.fields and not block.lines:
            shaper.wrong(item, f"{op}: an empty condition fits everything; remove it")
    return Group(op, blocks, f"{op}: {flow(node)}", node.place.line, node.place.column)


def _attribute(key: str, node: Node, shaper: Shaper) -> Attribute | None:
    if key in ("not", "some"):
        instead = "none_of: [{…}]" if key == "not" else "some under one keyword: {ImageType: {some: {…}}}"
        shaper.wrong(node, f"{key} cannot stand here; write {instead}")
        return None
    try:
        return lookup(key)
    except ValueError as error:
        shaper.wrong(node, str(error))
        return None


def flow(node: Node) -> str:
    """A node in one line, as YAML's flow style writes it."""
    if node.is_mapping:
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in node.fields.items()) + "}"
    if node.is_list:
        return "[" + ", ".join(flow(item) for item in node.items) + "]"
    return f'"{node.text}"' if node.quoted else node.text


class _Reader:
    """Reads conditions on one attribute."""

    def __init__(self, attribute: Attribute, shaper: Shaper) -> None:
        self.attribute = attribute
        self.shaper = shaper

    def condition(self, node: Node, nested: bool = False) -> Condition:
        """A plain value, a list, or a mapping of operators."""
        if not node.is_mapping:
            test = self._plain(node)
            return Condition((test,) if test else ())
        if not node.fields:
            self.shaper.wrong(node, f"{self.attribute.name}: {{}} asks for nothing; write present or a value")
        tests: list[Test] = []
        groups: list[tuple[str, tuple[Condition, ...]]] = []
        some = None
        for op, value in node.fields.items():
            if op in ("any_of", "none_of", "not"):
                groups.append((op, self._inner(op, value)))
            elif op == "some" and not nested:
                some = self.condition(value, nested=True)
            elif op == "some":
                self.shaper.wrong(
                    value, f"some stands directly under {self.attribute.name}, not inside another"
                )
            elif op in OPERATORS:
                test = self._operator(op, value)
                tests += [test] if test else []
            else:
                self._unknown(op, value)
        return Condition(tuple(tests), tuple(groups), some)

    def _inner(self, op: str, node: Node) -> tuple[Condition, ...]:
        """Conditions below `not`, `any_of` or `none_of`; `not: [A, B]` is neither of them."""
        whole = op == "not" and (self.attribute.several or not node.is_list)
        return tuple(self.condition(item, nested=True) for item in ((node,) if whole else node.items))

    def _unknown(self, op: str, node: Node) -> None:
        hint = _INSTEAD.get(op)
        text = hint or f"{op} is not a condition{nearest(op, OPERATORS)}"
        self.shaper.wrong(node, f"{self.attribute.name}: {text}")

    def _plain(self, node: Node) -> Test | None:
        """A value alone, or `present` / `absent`."""
        if node.is_text and not node.quoted and node.text in ("present", "absent"):
            return Test(node.text)
        if node.is_text and not node.text.strip():
            self.shaper.wrong(
                node, f"{self.attribute.name}: no value is given; write absent for a missing tag"
            )
            return None
        if node.is_list and not self.attribute.several:
            if self.attribute.name in OURS:
                return self._operator("one_of", node)
            self.shaper.wrong(
                node,
                f"{self.attribute.name} holds one value, not a list; for one of several values write "
                f"{{one_of: {flow(node)}}}",
            )
            return None
        return self._checked("equals", (node,))

    def _operator(self, op: str, node: Node) -> Test | None:
        if op in ("present", "absent"):
            return Test(op if self.shaper.yes_no(node, True) else {"present": "absent"}.get(op, "present"))
        if op in ("at_least", "at_most", "between"):
            return self._ordered(op, node)
        if op in _MULTI and not self.attribute.several:
            self.shaper.wrong(
                node, f"{self.attribute.name} holds one value; instead of {op} write one_of or not"
            )
            return None
        if op == "matches":
            if self.attribute.kind is Kind.OPAQUE:
                return self._checked(op, node.items)
            return Test(op, tuple((squeeze(text),) for text in self.shaper.texts(node)))
        if node.is_list and not node.items:
            self.shaper.wrong(node, f"{self.attribute.name}: {op} needs at least one value")
        return self._checked(op, node.items)

    def _ordered(self, op: str, node: Node) -> Test | None:
        wanted = 2 if op == "between" else 1
        if self.attribute.kind not in ORDERED:
            what = "text" if self.attribute.kind is Kind.TEXT else f"a {self.attribute.kind}"
            self.shaper.wrong(
                node, f"{self.attribute.name} is {what} and has no order, so {op} cannot be asked"
            )
            return None
        if len(node.items) != wanted or (wanted == 2 and not node.is_list):
            need = "two values, for example [1, 2]" if wanted == 2 else "one value"
            self.shaper.wrong(node, f"{self.attribute.name}: {op} needs {need}")
            return None
        values = [self._value(item) for item in node.items]
        if any(value is None for value in values):
            return None
        if self.attribute.kind is Kind.ANY and any(order(v, v) is None for v in values if v is not None):
            self.shaper.wrong(node, f"{self.attribute.name}: {op} needs numbers")
            return None
        if wanted == 2 and not isinstance(values[0], time) and order(values[0], values[1]) == 1:  # type: ignore[arg-type]
            self.shaper.wrong(node, f"{self.attribute.name}: between has its larger value first")
        return Test(op, tuple((value,) for value in values if value is not None))

    def _checked(self, op: str, nodes: tuple[Node, ...]) -> Test | None:
        """Equality-like tests: each operand a whole value; parts for the tests on multi-valued tags."""
        attribute = self.attribute
        if attribute.kind is Kind.OPAQUE:
            what = f"{attribute.name} holds a sequence; ask for present, absent, or a value inside it"
            if nodes:
                self.shaper.wrong(nodes[0], f"{what}, as {attribute.name}[0].CodeValue")
            return None
        operands = []
        for node in nodes:
            parts = node.items if op not in _MULTI else (node,)
            if op not in _MULTI and len(parts) < attribute.least:
                self.shaper.wrong(
                    node,
                    f"{attribute.name} always holds {attribute.least} or more values, so it never equals "
                    f"{flow(node)}; write has_any, has_all or excludes",
                )
                return None
            values = [self._value(part) for part in parts]
            operands.append(tuple(value for value in values if value is not None))
        return Test(op, tuple(operands))

    def _value(self, node: Node) -> Comparable | None:
        attribute = self.attribute
        if not node.is_text or not node.text.strip():
            self.shaper.wrong(node, f"{attribute.name}: expected a value, found {flow(node) or 'nothing'}")
            return None
        try:
            value = written(attribute.kind, attribute.unit, node.text, attribute.name)
        except ValueError as error:
            self.shaper.wrong(node, str(error))
            return None
        if attribute.choices and value not in attribute.choices:
            choices = ", ".join(attribute.choices)
            hint = nearest(node.text, attribute.choices)
            self.shaper.wrong(node, f"{attribute.name}: {node.text} is not one of {choices}{hint}")
        return value
