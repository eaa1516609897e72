"""What holds for every file of the repository."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from node import settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("node", "config", "rules", "deploy", "tests", ".ci")
FILES = ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", ".gitignore", ".pre-commit-config.yaml")

# Put together from parts, so that this file does not hold what it looks for.
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "raise NotImpl" + "emented")
MACHINE = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/")
FORBIDDEN = re.compile(
    "|".join([rf"\b{re.escape(w)}\b" for w in UNFINISHED] + [rf"(?<!\w){w}" for w in MACHINE])
)
"""Words of unfinished work, and paths of one machine."""


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every text file that belongs to the repository."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    for path in [*found, *(ROOT / name for name in FILES)]:
        if "__pycache__" not in path.parts:
            try:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_nothing_is_left_unfinished() -> None:
    """No file holds a reminder of unfinished work or a path of the machine it was written on."""
    found = [
        f"{path}:{number}: {match[0]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        for match in FORBIDDEN.finditer(line)
    ]
    assert found == []


@pytest.mark.parametrize("text", [*UNFINISHED, MACHINE[0] + "main", "see " + MACHINE[1] + "x"])
def test_the_search_finds_what_it_forbids(text: str) -> None:
    """Each forbidden word is found where it stands, and an innocent one is not."""
    assert FORBIDDEN.search(f"# {text} later")
    assert not FORBIDDEN.search("https://example.org/net" + MACHINE[0][1:] + " in a framework/ folder")


def test_every_test_states_its_claim() -> None:
    """Each test function has a docstring, so that the suite reads as a specification."""
    silent = [
        f"{path}:{node.lineno}: {node.name}"
        for path, text in texts()
        if path.name.startswith("test_") and path.suffix == ".py"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_test_files_have_names_of_their_own() -> None:
    """No two test files share a base name, but for those that pytest itself looks for: one would hide the other."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("key", settings.KEYS)
def test_every_setting_is_documented(key: str) -> None:
    """Each key of the site file stands, with a value, in the shipped one."""
    shipped = (ROOT / "config" / "node.yaml").read_text(encoding="utf-8")
    assert re.search(rf"(?<!\w){key}:", shipped)


def test_every_operator_entry_point_loads() -> None:
    """Each operator that pyproject.toml names is installed and can be imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = project["entry-points"]["node.operators"]
    installed = {point.name: point for point in entry_points(group="node.operators")}
    for name, value in promised.items():
        assert installed[name].value == value
        assert callable(installed[name].load())


def test_ci_installs_what_the_tests_need() -> None:
    """Each Debian program that the peers are found by is installed by `.ci/run`."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    needed = (
        "dcmtk",
        "orthanc",
        "dicom3tools",
        "libpixelmed-java",
        "libgdcm-tools",
        "default-jdk-headless",
        "openssl",
        "faketime",
    )
    for package in needed:
        assert f"[{package}]=" in script
    assert "make test\nexec make long\n" in script
    assert "export PACSNODE_CI=1" in script
