"""Claims about the verbs that tell what is where, and why, and about the tables they print."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import pytest
from cli_material import Place, lived_in, pacsnode, place
from flow_material import NOON, header
from peers import as_somebody_else
from sqlalchemy import update

from node.model import DeliveryState, InstanceState, RunState, SeriesState
from node.show import decisions, layout, printable, safe, when
from node.store import intake, queues, studies, work
from node.store.database import note, open_database
from node.store.schema import delivery


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A site where a CT was routed and processed, an MR was not wanted, and one object is parked."""
    return lived_in(tmp_path_factory.mktemp("lived"))


def test_status_tells_what_the_node_holds(lived: Place) -> None:
    """Counts by state, that it does not run, and what success means here."""
    text = lived.run("status").stdout
    assert "PACSNODE on 127.0.0.1:11112, not running" in text
    assert "survives power loss" in text
    assert "instances: 11 kept" in text
    assert "series: 1 routed, 1 unrouted" in text
    assert "deliveries: 1 parked, 7 stored, 1 waiting" in text
    found = lived.json("status")
    assert found["running"] is False
    assert found["series"] == {"routed": 1, "unrouted": 1}
    assert 0 < found["disk_used"] < 1


@pytest.mark.parametrize("closed", ["data", "data/pacsnode.db", "rules"])
def test_who_may_not_read_it_is_told_whom_to_be(closed: str) -> None:
    """A person who is not the node's user gets a sentence with the folder, and no traceback."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = place(Path(folder) / "site")
        (made.folder / "data").mkdir()
        open_database("sqlite", made.folder / "data").close()
        (made.folder / closed).chmod(0o600)
        with as_somebody_else():
            found = made.run("check" if closed == "rules" else "status")
        assert found.exit_code == 2, found.output
        assert f"{made.folder / closed.partition('/')[0]}: " in found.output
        assert "Traceback" not in found.output
        assert "user" in found.output


def test_a_destination_that_is_down_stands_out(tmp_path: Path) -> None:
    """Since when and why; brackets in the reason are no colours."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        queues.set_destination(tx, "PACS", down=True, reason="refused [/x] [red]", since=NOON, failures=3)
    database.close()
    result = made.run("status")
    assert "PACS is down since 2026-03-01" in result.stdout
    assert "refused [/x] [red]" in result.stdout


@pytest.mark.parametrize(
    ("verb", "near"), [("series", "routed"), ("runs", "done"), ("deliveries", "stored"), ("objects", "kept")]
)
def test_a_state_that_there_is_not_is_a_mistake(lived: Place, verb: str, near: str) -> None:
    """A misspelt state is no empty list: exit code 2, with the states there are and the nearest."""
    assert lived.run(verb, "--state", near).exit_code == 0
    result = lived.run(verb, "--state", near + "x")
    assert result.exit_code == 2
    assert f"--state {near}x is not one of" in result.stderr
    assert f"did you mean {near}" in result.stderr


@pytest.mark.parametrize(
    ("verb", "states"),
    [
        ("series", [SeriesState]), ("runs", [RunState]), ("deliveries", [DeliveryState]), ("objects", [InstanceState]),
        ("hold", [DeliveryState]), ("release", [DeliveryState]), ("retry", [DeliveryState, RunState]),
        ("cancel", [DeliveryState, RunState]),
    ],
)  # fmt: skip
def test_the_help_names_the_states(verb: str, states: list[type[StrEnum]]) -> None:
    """Whoever asks a verb that filters by state for its help reads which there are, and no others."""
    shown = " ".join(pacsnode(verb, "--help", COLUMNS="200").stdout.split())
    said = shown.partition("Only this state: ")[2].partition(".")[0]
    assert said.split("; with --runs: ") == [", ".join(state.value for state in kind) for kind in states]


STUDY = "1.2.276.0.7230010.3.1.2.8323329.12345.1700000000.1234567890.1234"


def test_status_tells_in_short_why_studies_wait(tmp_path: Path) -> None:
    """On 80 columns no line is longer, whatever does not fit: a head, two lines of reasons, the study; JSON has all."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    misfits = "; ".join(f"series {n}: Modality: is CT, expected PT or one [of] these" for n in range(1, 30))
    reasons = {
        "fusion": f"waits for pet: none of the 29 series fits; {misfits}",
        "ratio": "waits for late: no series",
    }
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        for rule, reason in reasons.items():
            values = {
                "state": studies.WAITING,
                "reason": reason,
                "since": NOON,
                "until": NOON,
                "due_at": NOON,
            }
            studies.set_rule(tx, STUDY, rule, **values)
    database.close()
    lines = made.run("status", COLUMNS="80").stdout.splitlines()
    first = lines.index("fusion waits for pet until 2026-03-01 13:00:00 CET")
    assert lines[first + 1].startswith("    none of the 29 series fits; series 1: Modality: is CT, ")
    assert "one [of] these" in " ".join(lines[first + 1 : first + 3])
    assert lines[first + 2].endswith(" …")
    assert lines[first + 3 : first + 7] == [
        f"    study {STUDY}", "ratio waits for late until 2026-03-01 13:00:00 CET", "    no series",
        f"    study {STUDY}",
    ]  # fmt: skip
    assert "`pacsnode find --study UID`" in lines[first + 7]
    assert max(len(line) for line in lines[first : first + 8]) <= 80
    assert {row["rule"]: row["reason"] for row in made.json("status")["waiting_studies"]} == reasons


def test_runs_in_shadow_are_listed_alone(tmp_path: Path) -> None:
    """--shadow leaves out the runs whose results are sent."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        opened = intake.open_series(tx, header(), 1, {}, NOON)
        for name, shadow in (("live", False), ("tried", True)):
            work.add_run(tx, series_id=opened, rule=name, plan="{}", sends="{}", files="[]", shadow=shadow,
                         due_at=NOON, created_at=NOON)  # fmt: skip
    database.close()
    assert {row["rule"] for row in made.json("runs")} == {"live", "tried"}
    assert {row["rule"] for row in made.json("runs", "--shadow")} == {"tried"}


@pytest.mark.parametrize("verb", ["series", "runs", "deliveries", "events"])
def test_every_list_has_a_table_and_json(lived: Place, verb: str) -> None:
    """The JSON has a row for each line of the table, and parses."""
    found = lived.json(verb)
    assert found
    assert all(isinstance(row, dict) for row in found)
    text = lived.run(verb, COLUMNS="1000").stdout
    assert len(text.splitlines()) == len(found) + 1


@pytest.mark.parametrize("verb", ["series", "runs", "deliveries", "events"])
@pytest.mark.parametrize("columns", ["80", "100"])
def test_no_table_is_wider_than_the_terminal(lived: Place, verb: str, columns: str) -> None:
    """At 80 and at 100 columns every line fits."""
    for line in lived.run(verb, COLUMNS=columns).stdout.splitlines():
        assert len(line) <= int(columns), line


def test_the_series_table_reads_at_80_columns(lived: Place) -> None:
    """Each series is a line, its reason in whole words below it; empty columns are not shown."""
    heading, *rows = lived.run("series", COLUMNS="80").stdout.splitlines()
    assert heading.split() == ["series", "rev", "state", "modality", "number", "objects", "last", "object"]
    assert rows[0].split()[:6] == ["2", "1", "unrouted", "MR", "4", "3"]
    assert rows[1].startswith("    quiet for 60 s; no rule: thick: Modality: is MR")


def test_into_a_pipe_each_row_is_one_line(lived: Place) -> None:
    """`pacsnode series | grep` finds the whole row."""
    result = pacsnode("--config", lived.site, "series", COLUMNS=None)  # type: ignore[arg-type]
    assert len(result.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["series", "--state", "routed"], 1),
        (["series", "--series", "2"], 1),
        (["series", "--state", "receiving"], 0),
        (["series", "--limit", "1"], 1),
        (["runs", "--series", "1"], 1),
        (["runs", "--series", "2"], 0),
        (["runs", "--run", "1", "--state", "done"], 1),
        (["deliveries", "--to", "PACS", "--state", "parked"], 1),
        (["deliveries", "--to", "ARCHIVE"], 0),
        (["deliveries", "--series", "2"], 0),
        (["events", "--to", "PACS"], 1),
        (["events", "--run", "1"], 2),
    ],
)
def test_lists_can_be_narrowed(lived: Place, arguments: list[str], expected: int) -> None:
    """Each option that is offered narrows the list."""
    assert len(lived.json(*arguments)) == expected


def test_an_option_that_would_do_nothing_is_not_offered(lived: Place) -> None:
    """`series --to` has no meaning: usage error, exit code 2."""
    assert lived.run("series", "--to", "PACS").exit_code == 2
    assert lived.run("events", "--state", "x").exit_code == 2
    assert lived.run("series", "--limit", "0").exit_code == 2


def test_an_empty_list_says_so(lived: Place) -> None:
    """A sentence for people, an empty list for scripts."""
    assert lived.run("series", "--state", "receiving").stdout == "No series like that.\n"
    assert lived.json("series", "--state", "receiving") == []


def test_lists_name_no_patient(lived: Place) -> None:
    """Neither tables nor JSON of series, runs, deliveries and events hold the patient's name or ID."""
    for verb in ("series", "runs", "deliveries", "events", "status"):
        text = lived.run(verb).stdout + lived.run(verb, "--json").stdout
        assert "PHANTOM-1" not in text
        assert "Analytic" not in text


def test_find_tells_a_study_as_one_timeline(lived: Place) -> None:
    """All that happened to the study's series, in order, and where its objects are."""
    accession = lived.json("find", "--patient", "PHANTOM-1")[0]["series"][0]["accession"]
    text = lived.run("find", "--accession", accession).stdout
    words = ("8 objects from CT01", "opened  ", "sealed  ", "thick: runs; route: runs", "run 1, thick   done")
    order = [text.index(word) for word in words]
    assert order == sorted(order)
    assert "2026-03-01, local time of Europe/Berlin (CET, UTC+01:00)" in text
    assert "13:00:00  series 1 " in text, "noon UTC is one o'clock in Berlin"
    assert "PHANTOM" not in text
    assert "→ PACS: 1 parked, 7 stored, 1 waiting" in text
    (study,) = lived.json("find", "--study", lived.json("find", "--since", "36500 d")[0]["study_uid"])
    assert [one["id"] for one in study["series"]] == [1, 2]


def test_finding_nothing_is_a_failure_in_words(lived: Place) -> None:
    """Exit code 1, and a sentence."""
    result = lived.run("find", "--accession", "nope")
    assert (result.exit_code, result.stdout) == (1, "nothing found\n")


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "find needs"), (["--since", "yesterday"], "expected a time such as")]
)
def test_find_asks_for_something_to_look_for(lived: Place, arguments: list[str], says: str) -> None:
    """Without a criterion, or with a time it cannot read: exit code 2."""
    result = lived.run("find", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_retry_takes_up_what_is_parked(tmp_path: Path) -> None:
    """By destination and status; asked again there is nothing, which is exit code 1."""
    made = lived_in(tmp_path / "site") if (tmp_path / "site").mkdir() is None else None
    assert made is not None
    assert made.run("retry", "--to", "PACS", "--status", "C000").exit_code == 1
    assert made.json("retry", "--to", "PACS", "--status", "0122") == {
        "verb": "retry", "what": "deliveries", "changed": 1, "left": {}, "dry_run": False,
    }  # fmt: skip
    result = made.run("retry", "--to", "PACS", "--status", "0122")
    told = "nothing to retry among the deliveries; left alone: 1 waiting\n"
    assert (result.exit_code, result.stdout) == (1, told)
    assert made.json("events")[0]["detail"] == "1 retried by hand"
    assert made.run("retry", "--run", "1").exit_code == 1  # it is done
    assert made.run("retry").exit_code == 2
    assert "hexadecimal" in made.run("retry", "--to", "PACS", "--status", "zz").stderr


def test_parked_deliveries_are_one_group_that_can_be_retried(tmp_path: Path) -> None:
    """Destination, SOP class and status make a group, whatever the single reasons; retry takes just that group."""
    (tmp_path / "site").mkdir()
    made = lived_in(tmp_path / "site")
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        for key in (1, 2, 3):
            values = {"state": "parked", "status": 0xC000, "reason": f"it names (0010,00{key}0)"}
            tx.execute(update(delivery).where(delivery.c.id == key).values(**values))
    database.close()
    found = made.json("deliveries", "--to", "PACS", "--state", "parked")
    assert sorted((group["status"], group["objects"]) for group in found) == [(0x0122, 1), (0xC000, 3)]
    (group,) = [group for group in found if group["objects"] == 3]
    assert group["reason"] == "it names (0010,0010) (and 2 other reasons)"
    chosen = ("--to", "PACS", "--class", "CTImageStorage", "--status", "C000")
    assert made.json("retry", "--dry-run", *chosen)["changed"] == 3
    assert made.json("retry", *chosen)["changed"] == 3
    assert [g["status"] for g in made.json("deliveries", "--state", "parked")] == [0x0122]


def test_status_tells_for_whom_too_much_waits(tmp_path: Path) -> None:
    """A destination whose share of the disk is taken stands out, with what that means."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    database = open_database("sqlite", made.folder / "data")
    usage = shutil.disk_usage(made.folder)
    with database.write() as tx:
        waiting = (usage.used + usage.free) * 31 // 100
        queues.set_destination(tx, "PACS", waiting_bytes=waiting)
        queues.set_destination(tx, "ARCHIVE", waiting_bytes=7)
    database.close()
    text = " ".join(made.run("status").stdout.split())
    assert "what waits for PACS takes 31% of the disk, the limit is 30%: runs that only go there wait" in text
    assert "ARCHIVE" not in text
    assert list(made.json("status")["crowded"]) == ["PACS"]


def test_status_tells_for_whom_success_means_less(tmp_path: Path) -> None:
    """A peer whose objects need not survive a power cut stands beside what holds for the others."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    open_database("sqlite", made.folder / "data").close()
    changed = {"PACSNODE__PEERS__CT01__DURABILITY": "process"}
    text = " ".join(made.run("status", **changed).stdout.split())
    assert "survives power loss; CT01: kill -9, not power loss" in text
    assert json.loads(made.run("status", "--json", **changed).stdout)["durability_differs"] == {
        "CT01": "process"
    }


def test_a_node_that_never_ran_says_so(tmp_path: Path) -> None:
    """Exit code 2 and what to do, for every verb that asks the database."""
    made = place(tmp_path / "site")
    for verb in ("status", "series", "runs", "deliveries", "events"):
        result = made.run(verb)
        assert result.exit_code == 2
        assert "pacsnode run" in result.stderr


def test_a_peers_words_never_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences and line breaks in a reason come out as blanks."""
    made = place(tmp_path / "site")
    (made.folder / "data").mkdir()
    database = open_database("sqlite", made.folder / "data")
    with database.write() as tx:
        note(tx, NOON, "odd", "a\x1b[31mred\nnext [/bold]", destination="PACS")
    database.close()
    text = made.run("events").stdout
    assert "\x1b" not in text
    assert "a [31mred next [/bold]" in text


# --- the table by itself

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_time_is_as_short_as_it_can_be_told() -> None:
    """The time today, day and time this year, else the date."""
    noon = NOW.astimezone().replace(hour=12)
    assert when(noon, noon) == "12:00:00"
    assert when(noon - timedelta(days=20), noon).endswith("12:00")
    assert when(noon - timedelta(days=400), noon) == (noon - timedelta(days=400)).strftime("%Y-%m-%d")


def test_words_stand_beside_where_there_is_room_and_below_where_not() -> None:
    """The last column is broken between words and keeps its place."""
    rows = [{"id": 1, "state": "routed", "why": "quiet for 60 s; " * 4}]
    columns = {"id": "id", "state": "state", "why": "why"}
    wide = [line.plain for line in layout(rows, columns, 60, NOW)]
    assert wide[0] == "id  state   why"
    assert wide[1].startswith("1   routed  quiet for 60 s;")
    assert all(line.startswith(" " * 12 + "q") or line.startswith(" " * 12) for line in wide[2:])
    narrow = [line.plain for line in layout(rows, columns, 35, NOW)]
    assert narrow[0] == "id  state"
    assert narrow[1] == "1   routed"
    assert narrow[2].startswith("    quiet for 60 s;")
    assert max(map(len, narrow)) <= 35


def test_columns_without_a_value_are_left_out() -> None:
    """What nobody has takes no room."""
    lines = [line.plain for line in layout([{"id": 1, "held": "", "why": "x"}],
                                           {"id": "id", "held": "held", "why": "why"}, 80, NOW)]  # fmt: skip
    assert lines == ["id  why", "1   x"]


def test_wide_characters_keep_the_columns_in_line() -> None:
    """Chinese and Japanese characters take two places each."""
    rows = [{"a": "山田", "b": "x", "why": ""}, {"a": "long", "b": "y", "why": ""}]
    lines = [line.plain for line in layout(rows, {"a": "a", "b": "b", "why": "why"}, 80, NOW)]
    assert lines[1] == "山田  x"
    assert lines[2] == "long  y"


def test_text_for_terminals_is_harmless() -> None:
    """Control characters become blanks, and brackets stay brackets."""
    assert printable("a\tb\0c\u202ed") == "a b c d"
    assert json.loads(json.dumps(safe("[red]x"))) == "\\[red]x"


def test_decisions_over_dozens_of_rules_stay_a_line() -> None:
    """All that run, the first three of those that do not, and how many more; four are told as the rules come."""
    told = [{"rule": f"r{n}", "runs": n == 7, "because": f"why {n}"} for n in range(40)]
    assert decisions(json.dumps(told)) == (
        "r7: runs; r0: why 0; r1: why 1; r2: why 2; and 36 more rules do not run"
    )
    assert decisions(json.dumps(told[:4])) == "r0: why 0; r1: why 1; r2: why 2; r3: why 3"
    assert decisions(json.dumps(told[6:8])) == "r6: why 6; r7: runs"
    assert decisions("quiet for 60 s") == "quiet for 60 s"


@pytest.mark.parametrize("verb", ["deliveries", "events", "hold", "retry", "release", "cancel"])
def test_a_misspelt_destination_is_named(lived: Place, verb: str) -> None:
    """Nothing was found because no peer is called so; the nearest one is said, and nothing where the name is right."""
    found = lived.run(verb, "--to", "ARCHVE")
    assert "ARCHVE is not among the peers; did you mean ARCHIVE?" in found.stderr
    assert found.exit_code == (0 if verb in ("deliveries", "events") else 1)
    assert (
        "peers" not in lived.run(verb, "--to", "ARCHIVE", *(["--dry-run"] if found.exit_code else [])).stderr
    )
