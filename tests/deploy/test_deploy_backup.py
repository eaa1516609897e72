"""The backup and restore scripts, with a real node: what was acknowledged before the backup is there and arrives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import peers
import pytest
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    derived,
    house,
    storm_series,
)

DEPLOY = Path(__file__).parents[2] / "deploy"


def script(name: str, site: House, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the shipped scripts for a site; the program is the one of this installation."""
    program = site.folder / "pacsnode"
    if not program.exists():
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m node.cli "$@"\n')
        program.chmod(0o755)
    environ = {**os.environ, "PACSNODE": str(program), "PACSNODE_CONFIG": str(site.folder / "node.yaml")}
    return subprocess.run(
        [str(DEPLOY / name), *map(str, arguments)], env=environ, capture_output=True, text=True, check=False
    )


def test_a_destroyed_node_goes_on_from_its_backup(tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """Saved while it receives, destroyed, restored: all that was acknowledged before is kept and delivered."""
    before, after = storm_series(tmp_path, 2)
    with house(tmp_path / "site", {"all": ROUTE_ALL, "measure": MEASURE_CT}) as site:
        site.start()
        scanner, late = Scanner(site.port), Scanner(site.port)
        scanner.send(ball(tmp_path))
        scanner.send(before)  # nothing of it can be delivered yet: the PACS is down
        sending = threading.Thread(target=late.send, args=(after,), kwargs={"pause": 0.05})
        sending.start()
        saved = script("backup.sh", site, tmp_path / "backup")
        assert saved.returncode == 0, saved.stderr
        sending.join()
        site.kill_all()
        shutil.rmtree(site.data)

        restored = script("restore.sh", site, tmp_path / "backup")
        assert restored.returncode == 0, restored.stdout + restored.stderr
        assert "no problems" in restored.stdout
        with Pacs(site.pacs_port).open() as pacs:
            site.start()
            site.hurry()
            site.wait_idle()
            assert_delivered(scanner, pacs)
            assert set(undisturbed["ball"]) <= derived(
                Scanner(0, acknowledged={**scanner.acknowledged, **late.acknowledged}), pacs
            )
            assert all(len(digests) == 1 for digests in pacs.held.values())
            again = Scanner(site.port)  # the node receives as before, under new numbers
            again.send(after)
            site.wait_idle()
            assert_delivered(again, pacs)
            site.stop()
        checked = subprocess.run(
            [site.folder / "pacsnode", "--config", site.folder / "node.yaml", "verify"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout


def test_a_restore_over_data_is_refused(tmp_path: Path) -> None:
    """The scripts say what is wrong and end with the program's exit code: 2 for no backup, 3 for a folder in use."""
    with house(tmp_path / "site", {"all": ROUTE_ALL}) as site:
        none = script("restore.sh", site, tmp_path)
        assert (none.returncode, "no whole backup" in none.stderr) == (2, True)
        site.start()
        assert script("backup.sh", site, tmp_path / "backup").returncode == 0
        found = script("restore.sh", site, tmp_path / "backup")
        assert (found.returncode, "is not empty" in found.stderr) == (3, True)
        assert script("backup.sh", site).returncode != 0
        site.stop()


def test_the_backup_keeps_identified_data_to_its_owner(tmp_path: Path) -> None:
    """Nobody but the node's user may look into the backup."""
    with house(tmp_path / "site", {"all": ROUTE_ALL}) as site:
        site.start()
        assert script("backup.sh", site, tmp_path / "backup").returncode == 0
        site.stop()
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copy the backup's units with a program that exists here."""
    made = []
    for name in ("pacsnode-backup.service", "pacsnode-backup.timer"):
        text = (DEPLOY / name).read_text()
        made.append(tmp_path / name)
        made[-1].write_text(text.replace("/opt/pacsnode/bin/backup.sh", str(shutil.which("true"))))
    return made


def test_the_units_are_ones_that_systemd_understands(units: list[Path]) -> None:
    """`systemd-analyze verify` has nothing to say about the timer and the service, nor its security review."""
    analyze = peers.need("systemd-analyze")
    for command in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=20", "--no-pager"]):
        names = units if command[0] == "verify" else units[:1]
        done = subprocess.run([analyze, *command, *names], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_timer_comes_after_retention() -> None:
    """The backup starts later in the night than retention, which the node runs at its own hour."""
    from node.upkeep import NIGHT

    found = re.search(r"OnCalendar=\S+ (\d+):", (DEPLOY / "pacsnode-backup.timer").read_text())
    assert found
    assert int(found[1]) > NIGHT
