"""`import` beside a node that works: what it takes in goes its way, and a killed one is begun again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from crash.crash_house import ROUTE_ALL, House, Pacs, ball, digest_of, house

from node.store.arrival import read_arrival


def _import(site: House, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "node.cli",
        "--config",
        str(site.folder / "node.yaml"),
        "import",
        str(folder),
    ]
    return subprocess.run(
        [*command, "--from", "CT01"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_import_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    """Killed at its fifth object, it left what it had; the second takes in all; each is at the PACS as it was."""
    files = ball(tmp_path / "images")
    folder = files[0].parent
    with house(tmp_path / "site", {"all": ROUTE_ALL}) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        killed = _import(site, folder, PACSNODE_FAULT="after-rename:5")
        assert killed.returncode == -9
        again = _import(site, folder)
        assert again.stdout == f"{len(files)} objects taken in, as from CT01\n", again.stderr
        site.wait_for(lambda: site.instances() == len(files) + 5, f"{len(files) + 5} files in the tables")
        site.wait_idle()
        held = pacs.held
        site.stop()
    expected = {}
    for path in files:
        arrival, offset = read_arrival(path)
        expected[arrival.sop_uid] = {digest_of(path.read_bytes()[offset:])}
    assert held == expected
