"""Claims about the README: what it says of the program is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from node.cli import main
from node.process import registry
from node.route.keywords import OURS
from node.route.rules import parse_rules
from node.shape import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `pacsnode …` in a shell block, as words after the program's name."""
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    return [
        shlex.split(line.split("pacsnode ", 1)[1], comments=True)
        for line in lines
        if re.search(r"(^|/)pacsnode ", line)
    ]


def test_every_verb_is_in_the_readme() -> None:
    """A verb that the README does not name is not on offer."""
    missing = [
        name for name in main.commands if not re.search(rf"`[^`]*\b{name}\b|pacsnode {name}\b", README)
    ]
    assert missing == []


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_in_the_readme_exists(words: list[str]) -> None:
    """Verb and options of each shown command are those of the program."""
    while words[0].startswith("--"):  # options of the program itself, each with a value
        words = words[2:]
    verb = main.commands[words[0]]
    known = {text for p in verb.params if isinstance(p, click.Option) for text in p.opts}
    used = {word for word in words[1:] if word.startswith("--") and word != ">"}
    assert used <= known


def test_the_rule_in_the_readme_passes_check() -> None:
    """The rule that readers copy is one that the node takes, `try:` cases and all."""
    (text,) = [text for kind, text in BLOCKS if kind == "yaml"]
    rules = parse_rules({"README.md": text}, registry.specs(), {"PACS": True})
    assert [rule.name for rule in rules.rules] == ["ct-chest-thick"]
    assert parse(text, "README.md")


def test_every_fact_of_ours_is_in_the_readme() -> None:
    """The facts that rules may ask for are listed where rules are explained."""
    assert [name for name in OURS if f"`{name}`" not in README] == []


def test_the_operator_in_the_readme_is_one() -> None:
    """The operator that readers copy has a signature that the registry takes."""
    from node.process.signature import spec_of

    (text,) = [text for kind, text in BLOCKS if kind == "python"]
    space: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), space)  # noqa: S102 - our own README
    spec = spec_of("acme.emphysema_index", space["emphysema_index"])
    assert [p.name for p in spec.inputs] == ["volume", "mask"]
    assert [(p.name, p.unit, p.default) for p in spec.options] == [("below", "[hnsf'U]", -950)]


def test_every_make_target_exists() -> None:
    """The two commands that the README starts with are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "check", "soak", "bench"} <= targets
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets
