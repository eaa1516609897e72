"""Claims about what is kept of the operators' answer: it holds while nothing is installed, and never longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from node import app
from node.process import installed
from node.store.database import OF_A_NODE

MODULE = '''"""An operator that writes down when it is loaded."""
import os
from pathlib import Path
from node.operator import Volume
with Path(os.environ["ACME_LOADED"]).open("a") as file:
    file.write("loaded\\n")
def twice(volume: Volume) -> {kind}:
    """{summary}"""
    return volume
'''
ASK = """
import sys
from pathlib import Path
from node import app
print(app.operators(Path(sys.argv[1]))[0]["acme.twice"].summary)
"""
METADATA = "Metadata-Version: 2.1\nName: acme\nVersion: {}\n"


@dataclass
class Plugin:
    """A distribution `acme` with one operator, and a node's data folder."""

    folder: Path
    data: Path

    def write(self, summary: str = "Doubled.", version: str = "1.0", kind: str = "Volume") -> None:
        """Install it, or another version of it in its place."""
        info = self.folder / "acme.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(METADATA.format(version))
        (info / "entry_points.txt").write_text("[node.operators]\nacme.twice = acme_ops.twice:twice\n")
        package = self.folder / "acme_ops"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "twice.py").write_text(MODULE.format(summary=summary, kind=kind))

    def ask(self) -> str:
        """The operator's summary and version, as somebody gets them who needs the operators."""
        spec = app.operators(self.data)[0].get("acme.twice")
        return f"{spec.summary} {spec.version}" if spec else ""

    @property
    def loaded(self) -> int:
        """How often its code was loaded until now."""
        log = self.folder.with_name("loaded")
        return len(log.read_text().splitlines()) if log.exists() else 0

    @property
    def files(self) -> list[str]:
        """What lies in the data folder."""
        return sorted(path.name for path in self.data.iterdir())


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """One that is installed, beside a data folder that a node has worked in."""
    made = Plugin(tmp_path / "lib", tmp_path / "data")
    made.folder.mkdir()
    made.data.mkdir()
    (made.data / OF_A_NODE).write_text("a node's")
    made.write()
    monkeypatch.setenv("ACME_LOADED", str(tmp_path / "loaded"))
    paths = [str(made.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.syspath_prepend(str(made.folder))
    return made


def test_operators_are_asked_once(plugin: Plugin) -> None:
    """The second who asks gets the same answer and no plugin is loaded; this process never loads one."""
    first = app.operators(plugin.data)
    assert app.operators(plugin.data) == first
    assert (plugin.ask(), plugin.loaded) == ("Doubled. 1.0", 1)
    assert "acme_ops" not in sys.modules
    assert "slice" in str(first[0]["reformat"]) or first[0]["reformat"].inputs, (
        "the node's own are there, too"
    )


def test_what_changes_the_answer_makes_them_asked_again(plugin: Plugin) -> None:
    """A new version, an edit of a module, another package beside it: each is seen at once, and kept in its turn."""
    plugin.ask()
    plugin.write(version="2.0")
    assert [plugin.ask(), plugin.ask(), plugin.loaded] == ["Doubled. 2.0", "Doubled. 2.0", 2]
    module = plugin.folder / "acme_ops" / "twice.py"
    before = module.stat()
    plugin.write(summary="Tripled.", version="2.0")
    assert module.stat().st_size == before.st_size
    assert [plugin.ask(), plugin.ask(), plugin.loaded] == ["Tripled. 2.0", "Tripled. 2.0", 3]
    (plugin.folder / "a_library").mkdir()  # it may import that
    assert [plugin.ask(), plugin.ask(), plugin.loaded] == ["Tripled. 2.0", "Tripled. 2.0", 4]


def test_of_a_plugin_being_written_nothing_is_kept(plugin: Plugin) -> None:
    """Installed editable (PEP 610), any file of its author may matter: its operators are asked every time."""
    url = {"url": "file:///src/acme", "dir_info": {"editable": True}}
    (plugin.folder / "acme.dist-info" / "direct_url.json").write_text(json.dumps(url))
    assert [plugin.ask(), plugin.ask(), plugin.loaded] == ["Doubled. 1.0", "Doubled. 1.0", 2]
    assert plugin.files == [OF_A_NODE]


def test_an_answer_with_mistakes_is_not_kept(plugin: Plugin) -> None:
    """What is wrong with an operator may be mended where it is not seen; until then it is looked at each time."""
    plugin.write(kind="int")
    for _ in range(2):
        (mistake,) = app.operators(plugin.data)[1]
        assert "acme.twice: it returns int" in mistake
    assert (plugin.loaded, plugin.files) == (2, [OF_A_NODE])


def test_a_damaged_file_is_asked_again(plugin: Plugin) -> None:
    """Cut off, other JSON, a changed answer, no text at all: the operators are asked and the file is mended."""
    right = plugin.ask()
    file = plugin.data / installed.FILE
    whole = file.read_bytes()
    damaged = (
        whole[:-100],
        b"",
        b"[]",
        b'{"fingerprint": 1}',
        b"\xff\xfe",
        whole.replace(b"Doubled", b"Dropped"),
    )
    under = installed.fingerprint()
    assert installed.recall(plugin.data, under) is not None
    for content in damaged:
        file.write_bytes(content)
        assert installed.recall(plugin.data, under) is None
    assert (plugin.ask(), plugin.loaded) == (right, 2)
    assert file.read_bytes() == whole


def test_several_may_ask_at_once(plugin: Plugin) -> None:
    """Processes that start together all get the answer, and what they leave is one file that serves the next."""
    processes = [
        subprocess.Popen([sys.executable, "-c", ASK, str(plugin.data)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["Doubled.\n"] * 3
    assert plugin.files == [OF_A_NODE, installed.FILE]
    before = plugin.loaded
    assert (plugin.ask(), plugin.loaded) == ("Doubled. 1.0", before)


def test_nothing_is_written_where_no_node_works(plugin: Plugin) -> None:
    """A folder that is to be filled from a backup has to be empty: asking leaves nothing there, nor makes one."""
    (plugin.data / OF_A_NODE).unlink()
    assert (plugin.ask(), plugin.files) == ("Doubled. 1.0", [])
    assert app.operators(plugin.data / "none")[0]
    assert not (plugin.data / "none").exists()


def test_a_folder_that_cannot_be_written_to_is_no_trouble(plugin: Plugin) -> None:
    """Where the file cannot be put in place they are asked each time, and what was begun is taken away."""
    (plugin.data / installed.FILE).mkdir()
    (plugin.data / installed.FILE / "in the way").touch()
    assert [plugin.ask(), plugin.ask(), plugin.loaded] == ["Doubled. 1.0", "Doubled. 1.0", 2]
    assert plugin.files == [OF_A_NODE, installed.FILE]
