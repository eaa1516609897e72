"""The editors' schema: it accepts every rule that is right, and marks what is wrong while it is typed."""

from __future__ import annotations

import json
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from route_cases import PEERS, SPECS, document
from ruamel.yaml import YAML
from test_route_malformed import TABLE

from node import app
from node.errors import Misconfigured
from node.route import rule_reading
from node.route import sends as sends_module
from node.route.schema import schema
from node.shape import parse

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "rules").glob("*.yaml"), *(ROOT / "config").glob("examples/rules/*.yaml")])


@cache
def validator(installed: bool = False) -> jsonschema.Draft7Validator:
    """The schema for the operators of the tests, or for the installed ones without a site file."""
    found = schema(app.operator_specs()) if installed else schema(SPECS, PEERS)
    return jsonschema.Draft7Validator(found)


def as_an_editor_sees(text: str) -> list[Any]:
    """The documents typed by YAML 1.2's core schema, as yaml-language-server types them; a date is a text there."""
    yaml = YAML(typ="safe", pure=True)
    found = [one for one in yaml.load_all(StringIO(text)) if one is not None]
    return [json.loads(json.dumps(one, default=str)) for one in found]


def test_it_is_a_schema_of_draft_7() -> None:
    """Editors refuse a schema that is none."""
    jsonschema.Draft7Validator.check_schema(schema(SPECS, PEERS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_shipped_rule_is_valid(path: Path) -> None:
    """No editor marks a line of what we ship."""
    for found in as_an_editor_sees(path.read_text(encoding="utf-8")):
        assert [
            f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator(True).iter_errors(found)
        ] == []


UNSEEN = {
    "a step that takes its own result", "a circular as:", "a duplicate rule name", "a circle of unless",
    "a unit where there is none", "a wrong unit", "a number that is none", "some inside",
}  # fmt: skip
"""What a schema cannot know: what names refer to, and units."""


@pytest.mark.parametrize("name", [name for name in TABLE if name not in UNSEEN])
def test_what_is_malformed_is_marked(name: str) -> None:
    """A mistake that stands in one place is seen by the schema, or the text is no YAML that an editor reads."""
    text = TABLE[name][0]
    try:
        plain = [node.plain() for node in parse(text, "f")]
    except Misconfigured:
        return  # the editor's own parser marks it, or the file is no file for an editor
    assert any(list(validator().iter_errors(one)) for one in plain)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (document("{Rows: {has_all: [1]}}"), document("{ImageType: {has_all: [A]}}")),
        (document("{Modality: {at_least: 3}}"), document("{Rows: {at_least: 3}}")),
        (document("{ReferencedImageSequence: X}"), document("{ReferencedImageSequence: present}")),
        (document("{from: CT03}"), document("{from: [CT01, CT02]}")),
        (
            document(rest="send: [{what: received, to: CT01}]"),
            document(rest="send: [{what: received, to: PACS}]"),
        ),
        (document("{Rows: {between: [1, 2, 3]}}"), document("{Rows: {between: [1, 2]}}")),
        (document(rest="send: [{what: received}]"), document(rest="send: [{what: received, to: [PACS]}]")),
    ],
)
def test_the_schema_knows_kinds_and_peers(wrong: str, right: str) -> None:
    """What an attribute cannot be asked, and who is no peer or cannot receive, is marked; the right one is not."""
    assert any(list(validator().iter_errors(one)) for one in as_an_editor_sees(wrong))
    assert not any(list(validator().iter_errors(one)) for one in as_an_editor_sees(right))


def test_everything_has_its_hover_text() -> None:
    """Every key, operator, option, condition and keyword says what it is."""
    found = schema(SPECS, PEERS)
    named = [
        found["properties"], found["properties"]["send"]["items"]["properties"],
        found["properties"]["do"]["items"]["properties"], found["definitions"]["when"]["properties"],
        found["definitions"]["given"]["properties"],
        *(found["definitions"][name]["anyOf"][1]["properties"] for name in found["definitions"] if "of_" in name),
        *(found["properties"]["do"]["items"]["properties"][name].get("properties", {}) for name in SPECS),
    ]  # fmt: skip
    assert sum(len(one) for one in named) > 8000
    assert [key for one in named for key, shape in one.items() if not shape.get("description")] == []


def test_new_keys_appear_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the reader learns is in the schema with its sentence, and takes anything until it has a shape."""
    monkeypatch.setitem(rule_reading.KEYS, "novel", "something new")
    monkeypatch.setitem(sends_module.KEYS, "novel", "something new to send")
    found = schema(SPECS, PEERS)
    assert found["properties"]["novel"]["description"] == "something new"
    (rule,) = as_an_editor_sees(
        document(rest="novel: {a: [1]}\nsend: [{what: received, to: PACS, novel: 3}]")
    )
    assert not list(jsonschema.Draft7Validator(found).iter_errors(rule))
