"""Claims about the wiring: which rules are in use, and what a start refuses."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from node import app, desk, holding
from node import settings as site
from node.errors import Misconfigured
from node.ops.health import Board, Role, beat, beat_path, board_path, write_board
from node.settings import Settings
from node.store.files import Disk

SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: UTC, data: data, rules: rules}
peers: {PACS: {ae_title: PACS, address: "127.0.0.1:4242"}}
"""
GOOD = "rule: all\npurpose: p\nowner: o@h.example\nwhen: {}\nsend: [{what: received, to: PACS}]\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A site with an empty rules folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "rules").mkdir()
    return site.parse(SITE, str(tmp_path / "node.yaml"), {})


def write(settings: Settings, text: str) -> None:
    """Put one rule file into the site's folder."""
    (settings.node.rules / "all.yaml").write_text(text)


def names(settings: Settings) -> tuple[list[str], str]:
    """The rules in use after a start, and what is said against those in the folder."""
    rules, problem = app.load_rules(settings, {})
    return [rule.name for rule in rules.rules], problem


def test_rules_that_pass_are_used(settings: Settings) -> None:
    """A good folder is used as it is, and nothing is said against it."""
    write(settings, GOOD)
    assert names(settings) == (["all"], "")


def test_on_first_start_broken_rules_leave_reception_alone(settings: Settings) -> None:
    """Without a set that ever passed there are no rules; the mistake is told with file and line."""
    write(settings, GOOD.replace("to: PACS", "to: PAX"))
    used, problem = names(settings)
    assert used == []
    assert "rules/all.yaml:5" in problem
    assert "PACS" in problem


def test_after_a_mistake_the_last_good_rules_stay_in_use(settings: Settings) -> None:
    """Promise 8: an edit that does not pass changes nothing, over any number of starts, until it is mended."""
    write(settings, GOOD)
    names(settings)
    write(settings, GOOD.replace("when:", "whem:"))
    for _ in range(2):
        used, problem = names(settings)
        assert used == ["all"]
        assert "did you mean when" in problem
    write(settings, GOOD.replace("rule: all", "rule: everything"))
    assert names(settings) == (["everything"], "")


def test_a_full_disk_does_not_keep_good_rules_from_being_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the set that passed cannot be written down it is used all the same; unchanged it is not written again."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write(settings, GOOD)
    names(settings)
    monkeypatch.setattr(Disk, "create", full)
    assert names(settings) == (["all"], "")
    write(settings, GOOD.replace("rule: all", "rule: everything"))
    assert names(settings) == (["everything"], "")
    assert "everything" not in (settings.node.data / "rules.json").read_text()


def test_last_good_rules_that_no_longer_fit_the_site_are_not_used(settings: Settings, tmp_path: Path) -> None:
    """A peer that was removed makes the kept rules wrong too: reception only, and both reasons."""
    write(settings, GOOD)
    names(settings)
    write(settings, "rule: [")
    changed = site.parse(SITE.replace("PACS: {", "ARCHIVE: {"), str(tmp_path / "node.yaml"), {})
    used, problem = names(changed)
    assert used == []
    assert "the last good rules do not fit either" in problem


def test_status_names_the_mistakes_until_they_are_mended(settings: Settings) -> None:
    """What `status` says of the rules is what the last start found."""
    write(settings, GOOD.replace("when:", "whem:"))
    app.build(settings).database.close()
    told = "\n".join(desk.status_lines(desk.status(settings)))
    assert "rules/all.yaml:4" in told
    write(settings, GOOD)
    app.build(settings).database.close()
    assert desk.status(settings)["rules_problem"] == ""


def test_an_operator_that_came_after_the_start_is_explained(settings: Settings) -> None:
    """The node that runs knows the operators of its start: `check` finds no mistake, so `status` says what helps."""
    rule = GOOD.replace("send:", "do: [{acme.lungs: {}, as: lungs}]\nsend:")
    write(settings, rule)
    app.build(settings).database.close()
    words = "installed since the node started"
    found = {**desk.status(settings), "running": True}
    assert words in "\n".join(desk.status_lines(found))
    assert words not in "\n".join(desk.status_lines({**found, "running": False}))


@pytest.mark.parametrize(
    ("roles", "told", "untold"),
    [
        ((Role("conductor", None, 4),), "running, but it does not work on what it has", ", not running"),
        ((Role("conductor", None, 4),), "conductor is not running: it ended 4 times in a row", ", not running"),
        ((Role("conductor", 7), Role("sender", None, 2)), "sender is not running: it ended 2 times", "conductor is"),
    ],
)  # fmt: skip
def test_status_names_a_process_that_does_not_live(
    settings: Settings, roles: tuple[Role, ...], told: str, untold: str
) -> None:
    """A node that receives and whose conductor dies again and again is not one that was stopped."""
    app.build(settings).database.close()
    board = Board(time.time(), os.getpid(), 1, (Role("receiver-0", 6), *roles))
    write_board(board_path(settings.node.data), board)
    beat(beat_path(settings.node.data), time.time())
    said = "\n".join(desk.status_lines(desk.status(settings)))
    assert told in said
    assert untold not in said
    stopped = replace(board, pid=2**22 + 1)
    write_board(board_path(settings.node.data), stopped)
    assert ", [red]not running[/]" in "\n".join(desk.status_lines(desk.status(settings)))


def test_a_missing_rules_folder_is_told(settings: Settings) -> None:
    """No folder is a mistake in words, not a start without a reason."""
    settings.node.rules.rmdir()
    assert "there is no such folder" in names(settings)[1]


def test_one_data_folder_has_one_conductor(settings: Settings) -> None:
    """The second one is refused and told what to do."""
    held = holding.hold(settings.node.data)
    try:
        assert holding.is_running(settings.node.data)
        with pytest.raises(Misconfigured, match="stop it first"):
            holding.hold(settings.node.data)
    finally:
        os.close(held)
    assert not holding.is_running(settings.node.data)


def test_status_says_what_a_full_disk_stops(settings: Settings, tmp_path: Path) -> None:
    """Above each limit `status` names the key, what does not happen any more, and what to do."""
    app.build(settings).database.close()
    assert desk.status(settings)["disk_problem"] == ""
    text = SITE + "disk: {warn: 0.1 %, stop_processing: 0.2 %, refuse: 0.3 %}\n"
    full = site.parse(text, str(tmp_path / "node.yaml"), {})
    told = "\n".join(desk.status_lines(desk.status(full)))
    assert "disk.refuse" in told
    assert "A700" in told


def test_status_adds_up_what_was_refused_while_the_node_runs(settings: Settings) -> None:
    """Each kind of refusal is one line, with every reason that occurred; a node that is down tells none."""
    app.build(settings).database.close()
    refusals = {
        "association_rejected": {"limit": 2, "called_title": 3, "address": 0},
        "object_refused": {"disk_full": 0},
    }
    write_board(board_path(settings.node.data), Board(0.0, 1, 1, (), refusals))
    assert desk.status(settings)["refusals"] == {}
    held = holding.hold(settings.node.data)
    try:
        found = desk.status(settings)
    finally:
        os.close(held)
    assert found["refusals"] == {"association_rejected": {"limit": 2, "called_title": 3}}
    lines = [line for line in desk.status_lines(found) if "since the node started" in line]
    assert lines == [
        "5 associations rejected since the node started: 3 × the called AE title is none of `node.ae_titles`; "
        "2 × `limits.associations` are open"
    ]


def test_status_says_that_the_rules_in_the_folder_are_not_in_use(settings: Settings) -> None:
    """An edit while the node does not run is told, and when it counts."""
    write(settings, GOOD)
    app.build(settings).database.close()
    assert not desk.status(settings)["rules_changed"]
    write(settings, GOOD.replace("rule: all", "rule: everything"))
    assert "taken when the node starts, if they pass" in "\n".join(desk.status_lines(desk.status(settings)))


def test_a_lost_database_is_told_by_every_verb(settings: Settings) -> None:
    """Where received objects lie and the database is gone, nobody is told that there is no data."""
    (settings.node.data / "objects").mkdir()
    with pytest.raises(Misconfigured, match="reindex"):
        desk.status(settings)
