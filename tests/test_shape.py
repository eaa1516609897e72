"""YAML nodes → typed values: places, units, and the nearest right word."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import Misconfigured
from node.shape import Node, Shaper, duration, load, nearest, parse, quantity, walk


def one(text: str) -> Node:
    """The only document in *text*."""
    return parse(text, "f.yaml")[0]


@pytest.mark.parametrize("text", ["NO", "0012", "1e3", "yes", "null", "~", "12:30", "2024-01-31", "0x1F"])
def test_text_stays_what_the_user_wrote(text: str) -> None:
    """YAML 1.1 types nothing: NO is no false and 0012 is no 10."""
    assert one(f"a: {text}").fields["a"].text == text


def test_folded_text_is_one_line() -> None:
    """Lines of a folded text come together with blanks, and with nothing else; a literal one keeps its lines."""
    assert one("a: >-\n  x: 1;\n  y: 2\nb: |-\n  x\n  y\n").plain() == {"a": "x: 1; y: 2", "b": "x\ny"}


def test_places() -> None:
    """Keys, list items and later documents know their line in the file."""
    first, second = parse("a: 1\nb:\n  - x\n  - y: z\n---\nc: 2\n", "f.yaml")
    assert str(first.fields["b"].place) == "f.yaml:2:1"
    assert str(first.fields["b"].items[1].fields["y"].place) == "f.yaml:4:5"
    assert str(second.fields["c"].place) == "f.yaml:6:1"


def test_plain_quoted_items_and_walk() -> None:
    """A node gives its plain value, knows about quotes, and lists itself and all below it."""
    node = one("a: [x, 'y']\nb: {c: d}")
    assert node.plain() == {"a": ["x", "y"], "b": {"c": "d"}}
    assert [item.quoted for item in node.fields["a"].items] == [False, True]
    assert [n.text for n in walk(node) if n.is_text] == ["x", "y", "d"]
    assert node.fields["b"].fields["c"].items[0].text == "d"
    assert one("a: x").fields["a"].fields == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: [1", "f.yaml:1:6"), ("a: 1\na: 2", "f.yaml:2:1"),
     ("? [x]\n: y", "f.yaml:1:3"), ("a: &x [*x]", "f.yaml:1:8"),
     ("a: " + "[" * 3000, "f.yaml:1:43"), ("a: \x07", "f.yaml:1:4"), ("a: *nobody", "f.yaml:1:4"),
     ("a: {<<: {b: c}}", "f.yaml:1:5"), ("a: !!int 3", "f.yaml:1:4"), ("a:\n\t- x", "f.yaml:2:1")],
)  # fmt: skip
def test_what_is_no_yaml_is_refused_with_its_place(text: str, place: str) -> None:
    """Broken YAML, double keys, circular aliases and endless brackets are refused with file, line and column."""
    with pytest.raises(Misconfigured) as refused:
        parse(text, "f.yaml")
    assert refused.value.mistakes[0].startswith(f"{place}: ")


def test_load(tmp_path: Path) -> None:
    """A file is read under its shown name; one that is missing or not UTF-8 is refused in words."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("a: ü", encoding="utf-8")
    bad.write_bytes("a: ü".encode("latin-1"))
    assert load(good, "shown.yaml")[0].place.file == "shown.yaml"
    with pytest.raises(Misconfigured, match="UTF-8"):
        load(bad)
    with pytest.raises(Misconfigured, match=r"gone\.yaml: cannot be read"):
        load(tmp_path / "gone.yaml", "gone.yaml")


def test_fields_name_unknown_and_missing_keys_at_once() -> None:
    """A misspelt key is answered with the right word; missing ones are named as well."""
    shaper = Shaper()
    found = shaper.fields(one("lisen: x\nae_title: y"), ("listen", "ae_title", "data"), ("data",))
    assert set(found) == {"ae_title"}
    assert shaper.mistakes == [
        "f.yaml:1:1: unknown key lisen; did you mean listen?",
        "f.yaml:1:1: data is missing",
    ]
    with pytest.raises(Misconfigured) as refused:
        shaper.finish()
    assert len(refused.value.mistakes) == 2
    Shaper().finish()


def test_typed_values() -> None:
    """Each reader gives its type for a right text and leaves no mistake."""
    shaper = Shaper()
    assert shaper.text(one("x y")) == "x y"
    assert shaper.texts(one("[a, b]")) == ("a", "b")
    assert shaper.texts(one("a")) == ("a",)
    assert shaper.choice(one("b"), ("a", "b")) == "b"
    assert [shaper.yes_no(one(t)) for t in ("Yes", "true", "ON", "no", "False", "off")] == [True] * 3 + [
        False
    ] * 3
    assert shaper.integer(one("0012")) == 12
    assert shaper.duration(one("10 min")) == timedelta(minutes=10)
    assert shaper.size(one("1.5 GB")) == 1_500_000_000
    assert shaper.size(one("2 KiB")) == 2048
    assert shaper.percent(one("88 %")) == pytest.approx(0.88)
    assert shaper.mistakes == []


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        ("text", "''", "a text, found nothing"),
        ("text", "[a]", "a text, found a list"),
        ("yes_no", "maybe", "yes or no, found 'maybe'"),
        ("integer", "1.5", "a whole number"),
        ("duration", "10", "45 s"),
        ("duration", "-1 s", "a duration"),
        ("duration", "10 parsecs", "a duration"),
        ("duration", "1e300 w", "a duration"),
        ("size", "5 mb", "500 MB"),
        ("size", "1e999 TB", "500 MB"),
        ("percent", "120 %", "a percentage"),
        ("percent", "80", "80 %"),
    ],
)
def test_wrong_values_say_what_is_expected(read: str, text: str, words: str) -> None:
    """A value of another type is a mistake with its place, what was expected, and what was found."""
    shaper = Shaper()
    getattr(shaper, read)(one(text))
    (told,) = shaper.mistakes
    assert told.startswith("f.yaml:1:1: expected ")
    assert words in told


def test_limits_and_choices() -> None:
    """Too small a number and a word that is not among the choices are named with the right one."""
    shaper = Shaper()
    shaper.integer(one("0"), at_least=1)
    shaper.choice(one("rufuse"), ("refuse", "accept"))
    assert shaper.mistakes == [
        "f.yaml:1:1: 0 is too small; the least is 1",
        "f.yaml:1:1: rufuse is not one of refuse, accept; did you mean refuse?",
    ]


def test_nearest() -> None:
    """The hint ignores case and stays silent where nothing is near."""
    assert nearest("modality", ["Modality"]) == "; did you mean Modality?"
    assert nearest("xyz", ["Modality"]) == ""


def test_quantity_and_duration() -> None:
    """A number is split from its unit; text without a number is none."""
    assert quantity(" 1.5e1mm ") == (15.0, "mm")
    assert quantity("mm") is None
    assert duration("2 w") == timedelta(weeks=2)
    assert duration("soon") is None


@given(st.text(max_size=40))
def test_no_text_breaks_a_reader(text: str) -> None:
    """Whatever a scalar holds, each reader answers or notes a mistake."""
    shaper = Shaper()
    node = Node(one("a").place, text)
    shaper.text(node)
    shaper.integer(node)
    shaper.duration(node)
    shaper.size(node)
    shaper.percent(node)
    shaper.yes_no(node)
    assert all(told.startswith("f.yaml:1:1: ") for told in shaper.mistakes)
