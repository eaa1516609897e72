"""Rule files that change while the node runs: what is taken, what is refused, and what goes on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flow_material import House, header, rule
from peers import as_somebody_else, wait_for

from node import app, proofreader
from node.errors import Misconfigured
from node.process.plan import plan_from_json
from node.route.check import prove
from node.route.rules import RuleSet, parse_rules
from node.rulewatch import Looks, Outcome
from node.store import choosing, queries
from node.store.database import open_database
from node.store.schema import delivery, run

PEERS = {"PACS": True}
GOOD = "rule: all\npurpose: p\nowner: o@h.example\nwhen: {}\nsend: [{what: received, to: PACS}]\n"
NONE = parse_rules({}, {}, PEERS)


def other(name: str) -> str:
    """The same rule by another name."""
    return GOOD.replace("rule: all", f"rule: {name}")


@dataclass
class Folder:
    """A rule folder that is looked at by hand, once a second."""

    path: Path
    proofs: int = 0
    now: float = 0.0
    looks: Looks = field(init=False)

    def __post_init__(self) -> None:
        self.path.mkdir(exist_ok=True)
        self.restart(NONE)

    def restart(self, in_use: RuleSet, problem: str = "") -> None:
        """Begin to look, with these rules in use."""
        self.looks = Looks(self.path, in_use, problem, self._prove)

    def _prove(self, files: Mapping[str, str]) -> RuleSet:
        self.proofs += 1
        return prove(files, {}, PEERS)

    def write(self, text: str, name: str = "all.yaml") -> None:
        """Put a file there."""
        (self.path / name).write_text(text)

    def look(self, seconds: float = 1.0) -> Outcome | None:
        """One look, a while after the last."""
        self.now += seconds
        return self.looks.look(self.now)

    def looked(self, times: int = 4) -> list[Outcome]:
        """What so many looks decide."""
        return [outcome for outcome in (self.look() for _ in range(times)) if outcome is not None]

    def names(self) -> list[str]:
        """The rules that some looks have taken."""
        (outcome,) = self.looked()
        assert outcome.rules is not None
        return [one.name for one in outcome.rules.rules]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder without files, and no rules in use."""
    return Folder(tmp_path / "rules")


def test_a_set_that_passes_is_taken_once(folder: Folder) -> None:
    """Two looks find it, one proof passes it, and nothing more is done until it changes."""
    folder.looked()
    folder.write(GOOD)
    assert folder.look() is None
    assert (outcome := folder.look()) is not None
    assert outcome.rules is not None
    assert dict(outcome.files) == {"rules/all.yaml": GOOD}
    assert folder.looked(40) == []
    assert folder.proofs == 1
    folder.write(other("everything"))
    assert folder.names() == ["everything"]


def test_a_file_being_written_is_not_taken(folder: Folder) -> None:
    """While the text changes from look to look nothing is judged, also where each piece of it would pass."""
    folder.looked()
    for length in (10, 40, 60, len(GOOD)):
        folder.write((GOOD + GOOD.replace("all", "more"))[:length])
        assert folder.look() is None
    assert folder.proofs == 0
    folder.write(GOOD)
    assert folder.names() == ["all"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("when:", "whem:"), "rules/all.yaml:4:1: unknown key whem; did you mean when?"),
        (GOOD.replace("to: PACS", "to: PAX"), "rules/all.yaml:5:25: there is no peer PAX"),
        (GOOD + "try: [{given: {Modality: CT}, expect: {runs: no}}]\n", "expected runs: no, but it runs"),
        (GOOD + "\x00", "the character #x0000"),
        (f"{GOOD}---\n{GOOD}", "there is already a rule all"),
    ],
)
def test_a_set_that_does_not_pass_is_refused_with_its_reason(folder: Folder, text: str, words: str) -> None:
    """A mistake, or a case that goes otherwise than expected; told once, until it is mended."""
    folder.write(GOOD)
    folder.looked()
    folder.write(text)
    (outcome,) = folder.looked(70)
    assert outcome.rules is None
    assert words in outcome.problem
    folder.write(GOOD)
    assert folder.names() == ["all"]  # the mistake is over, which must be told


def test_one_wrong_file_keeps_all_of_the_set_out(folder: Folder) -> None:
    """Rules refer to each other: a set counts as a whole."""
    folder.write(GOOD)
    folder.looked()
    folder.write(other("second"), "second.yaml")
    folder.write("rule: [", "third.yaml")
    (outcome,) = folder.looked()
    assert outcome.rules is None
    (folder.path / "third.yaml").unlink()
    assert folder.names() == ["all", "second"]


def test_all_files_gone_is_no_wish(folder: Folder) -> None:
    """An emptied or missing folder leaves the rules in use; a file without a rule says that none are wanted."""
    folder.write(GOOD)
    folder.looked()
    (folder.path / "all.yaml").unlink()
    (outcome,) = folder.looked()
    assert outcome.rules is None
    assert "is the folder mounted?" in outcome.problem
    folder.path.rmdir()
    (outcome,) = folder.looked()
    assert "there is no such folder" in outcome.problem
    folder.path.mkdir()
    folder.write("a,b\n", "table.csv")  # a table alone is no wish either
    (outcome,) = folder.looked()
    assert outcome.rules is None
    folder.write("# nothing is routed from here\n")
    (folder.path / "table.csv").unlink()
    assert folder.names() == []


def test_a_folder_that_may_not_be_read_is_refused_in_words(folder: Folder) -> None:
    """Without permission, or with a network folder gone, the rules in use stay, and looking goes on."""
    folder.write(GOOD)
    assert folder.names() == ["all"]
    with as_somebody_else():
        (outcome,) = folder.looked(40)
    assert outcome.rules is None
    assert f"{folder.path}: cannot be read: Permission denied; give the node's user" in outcome.problem
    (again,) = folder.looked(40)
    assert again.rules is not None


def test_a_link_behind_which_the_files_are_swapped(folder: Folder) -> None:
    """As Kubernetes does it with a ConfigMap: `..data` points to another folder all at once."""
    for version, name in (("1", "all"), ("2", "new")):
        (folder.path / f"..{version}").mkdir()
        folder.write(other(name), f"..{version}/all.yaml")
    (folder.path / "..data").symlink_to("..1")
    (folder.path / "all.yaml").symlink_to("..data/all.yaml")
    assert folder.names() == ["all"]
    (folder.path / "..tmp").symlink_to("..2")
    (folder.path / "..tmp").rename(folder.path / "..data")
    assert folder.names() == ["new"]


def test_a_change_that_no_time_and_no_size_tells(folder: Folder) -> None:
    """On a file system with coarse times, the texts themselves are read every half minute."""
    folder.write(GOOD)
    folder.looked()
    stamp = (folder.path / "all.yaml").stat()
    with (folder.path / "all.yaml").open("r+") as file:
        file.write(GOOD.replace("rule: all", "rule: lla"))
    os.utime(folder.path / "all.yaml", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert folder.looked(20) == []
    (outcome,) = folder.looked(20)
    assert outcome.rules is not None
    assert outcome.rules.rules[0].name == "lla"


def test_a_table_that_a_rule_names_is_watched_with_it(folder: Folder) -> None:
    """The rules are the same text, and mean something else: they are taken anew, and a wrong table is refused."""
    folder.write(GOOD.replace("to: PACS}", "to: PACS, edit: [{map: {BodyPartExamined: parts.csv}}]}"))
    folder.write("from,to\nCHST,CHEST\n", "parts.csv")
    assert folder.names() == ["all"]
    before = folder.looks.digest
    folder.write(
        "from,to\nCHST,CHEST\nTHX,THORAX\n" + "".join(f"A{n},B{n}\n" for n in range(100_000)), "parts.csv"
    )
    assert folder.names() == ["all"]
    assert folder.looks.digest != before
    folder.write("CHST,CHEST\nCHST,THORAX\n", "parts.csv")
    (outcome,) = folder.looked()
    assert "rules/parts.csv:2" in outcome.problem


def test_what_was_refused_at_the_start_is_not_told_again(folder: Folder) -> None:
    """The start has told it; the same files in the folder say nothing new, mended ones do."""
    folder.write(GOOD.replace("when:", "whem:"))
    with pytest.raises(Misconfigured) as refused:
        prove({"rules/all.yaml": GOOD.replace("when:", "whem:")}, {}, PEERS)
    problem = str(refused.value)
    folder.restart(prove({"rules/all.yaml": GOOD}, {}, PEERS), problem)
    assert folder.looked() == []
    folder.write(GOOD)
    assert folder.names() == ["all"]


def test_the_child_finds_what_we_would_find() -> None:
    """Rules come back from it equal to those read here; mistakes come back in the same words."""
    files = {"a.yaml": GOOD}
    assert proofreader.proved(files, {}, PEERS) == prove(files, {}, PEERS)
    wrong = {"a.yaml": GOOD.replace("PACS", "PAX")}
    with pytest.raises(Misconfigured) as here:
        prove(wrong, {}, PEERS)
    with pytest.raises(Misconfigured) as there:
        proofreader.proved(wrong, {}, PEERS)
    assert there.value.mistakes == here.value.mistakes


# --- what goes on while rules change

SOFT = "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]"


def used(house: House, text: str) -> str:
    """Use other rules, as the conductor does between two transactions."""
    files = {"rules/r.yaml": text}
    return app.use_rules(
        house.parts, Outcome(files, prove(files, house.specs, app.destinations(house.parts.settings)))
    )


def test_a_run_keeps_the_rule_it_began_with(tmp_path: Path) -> None:
    """A run that waits is made by the steps of the rule that opened it, and its results go where that one says."""
    house = House(tmp_path, rule("soft", SOFT))
    house.complete(header(1), header(2))
    words = used(house, rule("soft", "do: [{outline: {}, as: soft}]\nsend: [{what: soft, to: ARCHIVE}]"))
    assert words == "1 rule in use, by the same names"
    started = house.start()
    assert started is not None
    assert [step.operator for step in started.job.plan.steps] == ["smooth"]
    (row,) = house.rows(run)
    assert started.job.plan == plan_from_json(json.loads(row["plan"]))
    assert list(json.loads(row["sends"])["soft"]) == ["PACS"]


def test_a_series_sees_the_old_rules_or_the_new(tmp_path: Path) -> None:
    """Objects go by the rules of their moment; the sealed series is judged by those in use when it is routed."""
    house = House(tmp_path, rule("one", "send: [{what: received, to: PACS}]"))
    house.take(header(1))
    assert (
        used(house, rule("two", "send: [{what: received, to: ARCHIVE}]"))
        == "1 rule in use; added two; removed one"
    )
    house.complete(header(2))
    assert [(row["instance_id"], row["destination"], row["rule"]) for row in house.rows(delivery)] == [
        (1, "PACS", "one"),
        (2, "ARCHIVE", "two"),
    ]
    assert house.events("rules_taken")[0]["detail"] == "1 rule in use; added two; removed one"


def test_a_refusal_is_told_once_and_is_over_when_rules_pass(tmp_path: Path) -> None:
    """The event, `status` and readiness hold what is wrong; the rules in use stay the same object."""
    house = House(tmp_path)
    before = house.parts.rules
    for _ in range(2):
        said = app.use_rules(
            house.parts, Outcome({}, None, "rules/r.yaml:3:1: PatientName DOE^JANE is no pattern")
        )
    assert said == "1 mistake at rules/r.yaml:3:1; `pacsnode check` says what"
    assert house.parts.rules is before
    assert len(house.events("rules_refused")) == 1
    assert "DOE^JANE" in app.rules_problem(house.database)
    used(house, rule("one", "send: [{what: received, to: PACS}]"))
    assert app.rules_problem(house.database) == ""


# --- the conductor itself

SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: UTC, data: data, rules: rules}
peers: {PACS: {ae_title: PACS, address: "127.0.0.1:4242"}}
"""


@contextmanager
def conducting(folder: Path) -> Iterator[Path]:
    """A conductor over a folder; what it logs goes to the file that is yielded."""
    log, (read, write) = folder / "log", os.pipe()
    with log.open("ab") as to:
        process = subprocess.Popen(
            [sys.executable, "-m", "node.conductor", "--wake-fd", str(read), "--file", str(folder / "node.yaml")],
            stdin=subprocess.PIPE, stderr=to, pass_fds=(read,),
        )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(SITE.encode())
        process.stdin.close()
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        os.close(read)
        os.close(write)
        log.unlink()


def problem_in(folder: Path) -> str:
    """What the tables say is wrong with the rules."""
    database = open_database("sqlite", folder / "data", create=False)
    try:
        return app.rules_problem(database)
    finally:
        database.close()


def test_a_conductor_takes_rules_and_refuses_rules_also_over_a_restart(tmp_path: Path) -> None:
    """A good set replaces the old one within seconds; a bad one is told, also over a restart the good one works."""
    (tmp_path / "data").mkdir()
    (tmp_path / "rules").mkdir()
    file = tmp_path / "rules" / "all.yaml"
    file.write_text(GOOD)

    def logged(log: Path, name: str, times: int = 1) -> None:
        wait_for(lambda: log.read_text().count(f'"{name}"') >= times, name)

    with conducting(tmp_path) as log:
        logged(log, "conductor_started")
        file.write_text(other("everything"))
        logged(log, "rules_taken")
        file.write_text("rule: [")
        logged(log, "rules_refused")
        assert "rules/all.yaml:1:8: not valid YAML" in problem_in(tmp_path)
    with conducting(tmp_path) as log:
        logged(log, "conductor_started")
        time.sleep(2.5)  # long enough for a look that would tell again what the start has told
        assert '"rules_refused"' not in log.read_text()
        assert "rules/all.yaml:1:8: not valid YAML" in problem_in(tmp_path)
        file.write_text(other("everything"))
        logged(log, "rules_taken")
        assert "by the same names" in log.read_text()  # `everything` was in use all the time
        assert problem_in(tmp_path) == ""
    database = open_database("sqlite", tmp_path / "data", create=False)
    with database.read() as tx:
        names = [row["name"] for row in queries.list_events(tx, choosing.Wanted())]
    assert names.count("rules_refused") == 2  # when it changed, and at the start
    assert names.count("rules_taken") == 2
