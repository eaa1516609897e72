"""The README's tour, walked: every shell block in order, by one shell, with a real DCMTK and Orthanc.

What is replaced, and nothing else: `/tmp/tour` by a folder of this test, `/opt/pacsnode` by an environment that sees
the one of the tests (so that the tour's `pip install` changes neither), and the four ports by free ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import peers
import pytest
from e2e.readme_tour import README, Stop, said, script, stops

TEXT = README.read_text(encoding="utf-8")
STOPS = stops(TEXT)
PORTS = ("4242", "8042", "11112", "8080")
PATIENCE = 560
"""Seconds for the whole tour; it takes a tenth of that on two idle cores."""
pytestmark = pytest.mark.timeout(PATIENCE + 20)


@dataclass(frozen=True)
class Walk:
    """What the shell said: per block its output, and how it ended where a command failed."""

    output: dict[int, str]
    failed: str


def environment(folder: Path) -> Path:
    """Make an environment that has all the tests' one has, and takes what is installed into it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = site.getsitepackages()[0]
    (packages / "tests.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    program = folder / "bin" / "pacsnode"
    program.write_text(f"#!{folder}/bin/python\nfrom node.cli import main\nmain()\n")
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Say what of the README's text stands for what here."""
    folder = tmp_path_factory.mktemp("readme")
    places = {"/tmp/tour": str(folder / "tour"), "/opt/pacsnode": str(environment(folder / "opt"))}
    return places | {port: str(peers.free_port()) for port in PORTS}


def here(text: str, replaced: dict[str, str]) -> str:
    """Return *text* with this test's places and ports."""
    pattern = "|".join(map(re.escape, replaced))
    return re.sub(rf"(?<![\w.])({pattern})(?![\w.])", lambda found: replaced[found[1]], text)


def surroundings(replaced: dict[str, str]) -> dict[str, str]:
    """Return the environment of a user with the peers and the node in the PATH, and no package index."""
    programs = [str(Path(peers.need(name)).parent) for name in ("storescu", "echoscu", "Orthanc", "curl")]
    path = [*dict.fromkeys(programs), "/usr/bin", "/bin", f"{replaced['/opt/pacsnode']}/bin"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PACSNODE"))}
    return kept | {
        "PATH": os.pathsep.join(path),
        "COLUMNS": "250",  # tables are not wrapped
        "TCP_NODELAY": "1",  # DCMTK: without Nagle's algorithm
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # this is how pip is told: without
    }


@pytest.fixture(scope="module")
def walk(replaced: dict[str, str]) -> Walk:
    """Walk the tour once."""
    log = Path(replaced["/tmp/tour"]).with_name("walk.log")
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", here(script(TEXT), replaced)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=surroundings(replaced), cwd=README.parent, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        finally:
            leave_nothing(shell.pid)
    text = log.read_text(errors="replace")
    return Walk(said(text), f"the tour ended with {code}: {text[-3000:]}" if code else "")


def leave_nothing(group: int) -> None:
    """End what the shell left, where it did not come to its own end; the node's processes follow their parent."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def test_every_command_of_the_tour_ends_well(walk: Walk) -> None:
    """The shell, which ends at the first command that fails, comes to the end of the last block."""
    assert walk.failed == ""
    assert list(walk.output) == [stop.number for stop in STOPS]


@pytest.mark.parametrize("stop", [stop for stop in STOPS if stop.sees], ids=lambda stop: stop.name)
def test_one_sees_what_the_readme_shows(stop: Stop, walk: Walk, replaced: dict[str, str]) -> None:
    """The lines under a block come out of it in this order, `…` standing for anything, blanks as one."""
    output = " ".join(walk.output.get(stop.number, walk.failed).split())
    at = 0
    for line in stop.sees:
        words = " ".join(here(line, replaced).split())
        found = re.compile(".*?".join(map(re.escape, words.split("…")))).search(output, at)
        assert found, f"{words!r} is not shown after {output[:at][-80:]!r}, but: {output[at:][-3000:]}"
        at = found.end()
