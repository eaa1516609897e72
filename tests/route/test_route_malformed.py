"""Rule files that are wrong in every way known: a clear error with line and column, nothing worse, nothing changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from route_cases import PEERS, SPECS, document

from node.errors import Misconfigured
from node.route.check import prove
from node.route.rules import RuleSet, read_rules
from node.rulewatch import Looks

SEND = "send: [{what: received, to: PACS, mode: sealed}]"
BODY = "do: [{segment_body: {}, as: body}]\nsend: [{what: body, to: PACS}]"


def turn(name: str, other: str) -> str:
    """A rule that runs unless the other one does."""
    return document(rest=f"{SEND}\ngroup: g\nunless: [{other}]", name=name)


BOMB = "x: &a [y, y, y, y, y, y, y, y, y]\n" + "".join(
    f"{to}: &{to} [{', '.join(f'*{of}' for _ in range(9))}]\n"
    for of, to in zip("abcdefghij", "bcdefghijk", strict=True)
)

# name → text, where the first mistake is, and words of it
TABLE: Mapping[str, tuple[str, str, str]] = {
    "a typo in a key": (document().replace("purpose", "purpos"), "2:1", "did you mean purpose?"),
    "a typo in a keyword": (document("{Modalty: CT}"), "4:8", "did you mean Modality?"),
    "a wrong unit": (document("{SliceThickness: {at_most: 3 s}}"), "4:25", "s does not fit SliceThickness"),
    "a unit where there is none": (document("{Rows: 5 mm}"), "4:8", "no unit is known for Rows"),
    "an unknown operator": (
        document(rest=BODY.replace("_body", "_bodi")), "5:7", "did you mean segment_body?",
    ),
    "an unknown condition": (document("{Rows: {at_leest: 5}}"), "4:15", "did you mean at_least?"),
    "a step that takes its own result": (
        document(rest="do: [{reformat: {volume: soft, thickness: 1 mm}, as: soft}]\nsend: [{what: soft, to: PACS}]"),
        "5:18", "no earlier step is called soft",
    ),
    "a circular as:": (
        document(rest="do:\n- {statistics: {mask: second}, as: first}\n- {statistics: {mask: first}, as: second}\n"
                      "send: [{what: second, to: PACS}]"),
        "6:17", "no earlier step is called second",
    ),
    "an unreachable destination": (document(rest=SEND.replace("PACS", "PACZ")), "5:25", "did you mean PACS?"),
    "a destination without address": (document(rest=SEND.replace("PACS", "CT01")), "5:25", "no address"),
    "a duplicate rule name": (f"{document()}---\n{document()}", "7:1", "every name counts once"),
    "a duplicate key": (f"{document()}rule: again\n", "6:1", "rule is given twice"),
    "a tab": (document(rest="send:\n\t- {what: received, to: PACS}"), "6:1", "a tab; indent with blanks"),
    "a merge key": (f"x: &x {{a: b}}\n{document('{<<: *x}')}", "5:8", "merge keys (<<) are not available"),
    "a merge key at the top": (document(rest=f"{SEND}\n<<: {{mode: shadow}}"), "6:1", "merge keys"),
    "ten megabytes": (document() + "# " + "x" * 10_000_000, "1:1", "1 MB is the most"),
    "an alias bomb": (BOMB + document(), "6:12", "more than 100000 values"),
    "an alias of nothing": (document("*nobody"), "4:7", "nothing is anchored as &nobody"),
    "an alias in itself": (document("&w {any_of: [*w]}"), "4:20", "refers to what it stands in"),
    "deep nesting in brackets": (document("[" * 5000), "4:46", "nested too deeply"),
    "deep nesting in conditions": (document("{none_of: [" * 50 + "{}" + "]}" * 50), "4:226", "nested too deeply"),
    "a NUL byte": (document("{Modality: C\0T}"), "4:19", "the character #x0000"),
    "an escape": (document("{Modality: C\x1bT}"), "4:19", "the character #x001B"),
    "a tag": (document("{Rows: !!python/object/apply:os.system [id]}"), "4:14", "means nothing here"),
    "a colon in a text": (document().replace("purpose: p", "purpose: a: b"), "2:11", "put quotes around"),
    "an open bracket": (document("{Modality: [CT}"), "4:21", "not valid YAML"),
    "an open quote": (document("{Modality: 'CT}"), "6:1", "not valid YAML"),
    "a list for a rule": ("- rule: a\n", "1:1", "expected a rule"),
    "a text for a rule": ("hello\n", "1:1", "expected a rule"),
    "a key that is no word": (document("{[a]: b}"), "4:8", "a key must be a word"),
    "contains": (document("{ImageType: {contains: ORIGINAL}}"), "4:20", "has_all"),
    "some inside": (document("{Rows: {any_of: [{some: 5}]}}"), "4:25", "some stands directly under Rows"),
    "a clause beside when": (document(rest=f"{SEND}\nModality: CT"), "6:1", "stands under when:"),
    "a circle of unless": (
        turn("one", "two") + "---\n" + turn("two", "one"), "1:1", "goes round in a circle",
    ),
    "a number that is none": (document("{Rows: {at_least: many}}"), "4:15", "expected a number"),
    "a case that is no case": (
        document(rest=f"{SEND}\ntry: [{{given: {{Modlity: CT}}, expect: {{runs: yes}}}}]"), "6:16", "Modality",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.timeout(30)
def test_a_malformed_file_is_told_with_line_and_column(name: str) -> None:
    """The mistake is named at its place, and whatever else is said has a place."""
    text, place, words = TABLE[name]
    _, mistakes, _ = read_rules({"r.yaml": text}, SPECS, PEERS)
    assert any(m.startswith(f"r.yaml:{place}: ") and words in m for m in mistakes), mistakes
    assert all(re.match(r"r\.yaml:[1-9][0-9]*:[1-9][0-9]*: ", mistake) for mistake in mistakes), mistakes
    assert all(len(mistake) < 600 for mistake in mistakes)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.timeout(30)
def test_a_malformed_file_changes_nothing_in_a_running_node(tmp_path: Path, name: str) -> None:
    """Put beside a good one it is refused with its reasons, the rules in use stay, and mended it is taken."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "good.yaml").write_text(document(name="good"))

    def proved(files: Mapping[str, str]) -> RuleSet:
        return prove(files, SPECS, PEERS)

    in_use = proved({"rules/good.yaml": document(name="good")})
    looks = Looks(folder, in_use, "", proved)
    (folder / "bad.yaml").write_text(TABLE[name][0])
    outcomes = [found for second in range(4) if (found := looks.look(float(second))) is not None]
    assert [found.rules for found in outcomes] == [None]
    assert f"bad.yaml:{TABLE[name][1]}: " in outcomes[0].problem
    assert looks.digest == in_use.digest
    (folder / "bad.yaml").write_text(document(name="mended"))
    outcomes = [found for second in range(4, 8) if (found := looks.look(float(second))) is not None]
    assert [len(found.rules.rules) for found in outcomes if found.rules] == [2]


def test_all_of_them_at_once() -> None:
    """A folder of wrong files is read to its end: each file has its mistakes, and a good one its rule."""
    files = {f"{n:02}.yaml": text for n, (text, _, _) in enumerate(TABLE.values())}
    with pytest.raises(Misconfigured) as refused:
        prove({**files, "good.yaml": document(name="good")}, SPECS, PEERS)
    named = {mistake.split(":")[0] for mistake in refused.value.mistakes}
    assert named >= set(files)
