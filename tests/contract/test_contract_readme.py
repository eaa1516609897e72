"""Claims about the README and docs/: what they say of the program is so."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from e2e.readme_tour import FENCED, script, stops

from node import app
from node import settings as site
from node.cli import main
from node.process import registry
from node.process.signature import spec_of
from node.route.keywords import OURS
from node.route.rules import parse_rules
from node.shape import parse

main.load()

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PLUGIN = ROOT / "tests" / "plugin" / "acme-emphysema"
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = FENCED.findall(README)
KINDS = {"", "console", "sh", "text", "yaml", "python"}
"""What a block may be: `sh` is walked by tests/e2e, `text` is looked for, the rest is checked here."""


def blocks(kind: str) -> list[str]:
    """The README's blocks of one kind."""
    return [text for found, text in BLOCKS if found == kind]


def commands() -> list[list[str]]:
    """Every `pacsnode …` in a block for the shell, and every `pacsnode …` or verb in the text, as words."""
    lines = [line for kind in ("sh", "console") for text in blocks(kind) for line in text.splitlines()]
    found = [m[1] for line in lines for m in re.finditer(r"(?:^|[\s/])pacsnode ((?:--|[a-z])[^|;&>]*)", line)]
    verbs = "|".join(main.commands)
    prose = FENCED.sub("", README)
    found += re.findall(rf"`(?:pacsnode )?((?:{verbs}) [^`]*)`", prose)
    return [shlex.split(text, comments=True) for text in dict.fromkeys(found)]


def tool(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_shell_block_is_walked() -> None:
    """There is no kind of block that no test looks at, and every `sh` block is a step of the walked tour."""
    assert {kind for kind, _ in BLOCKS} <= KINDS
    assert README.count("\n```") == 2 * len(BLOCKS)
    walked = script(README)
    assert [text for text in blocks("sh") if text not in walked] == []
    assert len(stops(README)) == len(blocks("sh")) > 8


def test_what_one_sees_stands_under_a_command() -> None:
    """Each `text` block follows a shell block, so that the walk looks for it."""
    kinds = [kind for kind, _ in BLOCKS]
    assert [i for i, kind in enumerate(kinds) if kind == "text" and kinds[i - 1] != "sh"] == []


def test_a_console_block_only_needs_what_a_test_cannot_have() -> None:
    """What is not walked needs root, a container engine, a cluster, a package index, or is `make`."""
    lines = [line for text in blocks("console") for line in text.splitlines()]
    allowed = r"\$ (make|install|systemctl|podman|kubectl|export|python3 -m venv|/opt/pacsnode/bin/pip) "
    assert [line for line in lines if not re.match(allowed, line)] == []


def test_every_verb_is_in_the_readme() -> None:
    """A verb that the README's table does not name is not on offer."""
    table = README[README.index("## 7. All verbs") : README.index("## 8. ")]
    assert [name for name in main.commands if not re.search(rf"`{name}[ `]", table)] == []


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_in_the_readme_exists(words: list[str]) -> None:
    """Verb and options of each shown command are those of the program."""
    while words[0].startswith("--"):  # options of the program itself, each with a value
        words = words[2:]
    verb = main.commands[words[0]]
    if isinstance(verb, click.Group):
        verb, words = verb.commands[words[1]], words[1:]
    known = {text for p in verb.params if isinstance(p, click.Option) for text in p.opts}
    used = {word for word in words[1:] if word.startswith("--")}
    assert used <= known


def test_the_rules_in_the_readme_pass_check() -> None:
    """The rules that readers copy are ones that the node takes, all together."""
    written = re.findall(r"^cat > (rules/\S+) <<'END'\n(.*?)^END$", README, re.DOTALL | re.MULTILINE)
    texts = dict(written) | {f"README.md {n}": text for n, text in enumerate(blocks("yaml"))}
    site_file = ROOT / "config" / "examples" / "node.yaml"
    peers = app.destinations(site.parse(site_file.read_text(encoding="utf-8"), str(site_file), {}))
    rules = parse_rules(texts, registry.specs(), peers)
    shown = {"everything", "chest-body", "mr-diffusion-fused", "pet-ct-fusion", "tele-and-research"}
    assert {rule.name for rule in rules.rules} == shown
    assert all(parse(text, name) for name, text in texts.items())


def test_every_example_rule_is_named_in_the_readme() -> None:
    """Who reads the rule guide finds each example."""
    names = {path.stem for path in (ROOT / "config" / "examples" / "rules").glob("*.yaml")}
    assert {name for name in names if name not in README} == set()


def test_every_fact_of_ours_is_documented() -> None:
    """The facts that rules may ask for are listed where rules are explained."""
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    assert [name for name in OURS if f"`{name}`" not in page] == []


def test_the_operator_in_the_readme_is_that_of_the_plugin() -> None:
    """The operator that readers copy is the worked example's, word for word, and the registry takes it."""
    (text,) = blocks("python")
    space: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), space)  # noqa: S102 - our own README
    spec = spec_of("acme.emphysema_index", space["emphysema_index"])
    assert [p.name for p in spec.inputs] == ["volume", "mask"]
    assert [(p.name, p.unit, p.default) for p in spec.options] == [("below", "[hnsf'U]", -950)]
    whole = (PLUGIN / "acme_emphysema.py").read_text(encoding="utf-8")
    pieces = [ast.get_source_segment(text, node) or "" for node in ast.parse(text).body[1:]]
    assert [piece for piece in pieces if piece not in whole] == []


def test_the_output_types_in_the_readme_are_all_there_are() -> None:
    """What an operator may return, how it is called in `as:`, and the word of `shows` are the program's."""
    from node.flow.forms import SHOWN_AS
    from node.model import KIND_OF

    rows = re.findall(r"^\| (`\S.*?) \| [^|]+ \| `(\w+)` \| `(\w+)` \|$", README, re.MULTILINE)
    told = {name: (kind, shown) for names, kind, shown in rows for name in re.findall(r"\w+", names)}
    told["Measurements"] = told.pop("Measurement")
    told.pop("list")
    assert told == {name: (kind, SHOWN_AS[kind]) for name, kind in KIND_OF.items()}


def test_the_reference_pages_are_current() -> None:
    """docs/operators.md, docs/rules.md and the README's table of operators are what the program says.

    `python docs/make_reference.py` writes the pages again, `… table` prints the table.
    """
    reference = tool("make_reference")
    specs = reference.shipped()
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == reference.operators_page(specs)
    assert (DOCS / "rules.md").read_text(encoding="utf-8") == reference.rules_page()
    assert reference.short_table(specs) in README


def test_the_pictures_are_there_and_small() -> None:
    """Every picture that the README shows exists, is made by docs/make_pictures.py, and loads fast."""
    shown = re.findall(r"!\[[^\]]+\]\((docs/pictures/[a-z-]+\.png)\)", README)
    files = sorted((DOCS / "pictures").iterdir())
    maker = (DOCS / "make_pictures.py").read_text(encoding="utf-8")
    assert sorted(ROOT / name for name in shown) == files
    assert all(f'"{file.stem}": ' in maker for file in files)
    assert max(file.stat().st_size for file in files) < 150_000
    assert sum(file.stat().st_size for file in files) < 1_000_000


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in sorted(DOCS.glob("*.md")))])
def test_every_link_leads_somewhere(page: str) -> None:
    """Links to files and to headings of the same page are not broken."""
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))
    here = (ROOT / page).parent
    local = [link for link in links if "://" not in link]
    assert [
        link
        for link in local
        if not (link[1:] in headings if link[0] == "#" else (here / link.split("#")[0]).exists())
    ] == []


def test_every_make_target_exists() -> None:
    """The commands that the README starts with are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "check", "soak", "bench"} <= targets
    shown = re.findall(r"^\$ make (\w+)", README, re.MULTILINE)
    assert set(shown) == {"demo", "test"} <= targets


def test_the_scripts_of_docs_run() -> None:
    """The reference is made by one command without arguments, as its first lines say; it prints the table on demand."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "make_reference.py"), "table"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in README
