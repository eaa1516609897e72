"""`import` beside a node that works: what it takes in goes its way, and a killed one is begun again."""

from __future__ import annotations

from pathlib import Path

from crash.crash_house import ROUTE_ALL, Pacs, ball, digest_of, house

from node.store.arrival import read_arrival


def test_an_import_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    """Killed at its fifth object, it left what it had; the second takes in all; each is at the PACS as it was."""
    files = ball(tmp_path / "images")
    command = ("import", str(files[0].parent), "--from", "CT01")
    with house(tmp_path / "site", {"all": ROUTE_ALL}) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        killed = site.verb(*command, PACSNODE_FAULT="after-rename:5")
        assert killed.returncode == -9
        again = site.verb(*command)
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
