"""Alerts: what holds, that each thing is told once and its end as well, and that channels really hear it."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from peers import free_port
from sqlalchemy import delete, insert, text, update

from node import settings as site
from node.ops import alerts, health
from node.ops.alerts import Alert, check, merged
from node.ops.channels import Message, News, Syslog
from node.ops.conditions import _JUDGES, Condition, Snapshot, conditions
from node.settings import Alarm, Disk, Settings
from node.settings.alerting import AFTER
from node.store.database import Database, open_database, rows
from node.store.schema import alert, delivery, destination, event, instance, meta

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


# --- what holds


def found(snapshot: Snapshot, *when: Alarm, now: datetime = NOW) -> dict[tuple[str, str], Condition]:
    """The conditions that hold, by what and key."""
    return {(c.what, c.key): c for c in conditions(snapshot, when, now)}


def test_every_word_of_the_site_file_has_a_judge() -> None:
    """What `alerts.when` accepts is what is judged, no more and no less."""
    assert set(AFTER) == set(_JUDGES)


def test_nothing_is_wrong_with_a_quiet_node() -> None:
    """A snapshot of a working node holds no condition of any kind."""
    quiet = Snapshot(used=0.5, beaten=NOW - timedelta(seconds=2), received=NOW - MINUTE, opened=NOW - MINUTE)
    when = [Alarm(what, timedelta(hours=1)) for what in AFTER]
    assert conditions(quiet, when, NOW) == ()


@pytest.mark.parametrize(
    ("what", "snapshot", "key", "word"),
    [
        ("parked", Snapshot(parked={"PACS": 7}), "PACS", "7 objects"),
        ("quarantined", Snapshot(quarantined={"lung": 2}), "lung", "2 runs failed"),
        ("set_aside", Snapshot(aside=3), "", "3 objects set aside"),
        ("rules_refused", Snapshot(rules="rules/a.yaml:3: no\nrules/b.yaml:1: no"), "", "rules/a.yaml:3"),
        ("tls_certificate", Snapshot(certificates=("n.pem: it ended",)), "", "n.pem: it ended"),
        ("disk", Snapshot(used=0.81), "warn", "81% full"),
        ("disk", Snapshot(waiting={"PACS": 0.31}), "PACS", "what waits for PACS takes 31% of the disk"),
        ("destination_down", Snapshot(down=[("PACS", NOW, "refused")]), "PACS", "refused; its objects wait"),
        ("conductor_down", Snapshot(beaten=NOW - MINUTE), "", "not indexed"),
        ("conductor_down", Snapshot(beaten=None), "", "not indexed"),
        ("series_attention", Snapshot(opened=NOW - MINUTE), "", "still open"),
        ("no_objects", Snapshot(received=NOW - MINUTE), "", "no object was received"),
    ],
)
def test_each_condition_is_seen(what: str, snapshot: Snapshot, key: str, word: str) -> None:
    """One thing that is wrong gives one condition, whose words name it."""
    (condition,) = conditions(snapshot, [Alarm(what)], NOW)
    assert (condition.what, condition.key) == (what, key)
    assert word in condition.detail
    assert condition.due


def test_a_condition_is_due_when_it_has_lasted() -> None:
    """A destination counts from its own moment; what has none counts from the look that saw it first."""
    alarm = Alarm("destination_down", 15 * MINUTE)
    down = Snapshot(down=[("PACS", NOW - 14 * MINUTE, "x")])
    assert found(down, alarm) == {}
    assert found(down, alarm, now=NOW + MINUTE)["destination_down", "PACS"].since == NOW - 14 * MINUTE
    waits = Alarm("parked", 10 * MINUTE)
    first = Snapshot(parked={"PACS": 1})
    assert not found(first, waits)["parked", "PACS"].due
    later = Snapshot(parked={"PACS": 1}, known={("parked", "PACS"): NOW - 10 * MINUTE})
    assert found(later, waits)["parked", "PACS"].due


def test_an_unknown_ae_title_is_told_at_once() -> None:
    """Waiting mends no AE title: whatever duration the site file asks, it is due now, and others are not."""
    alarm = Alarm("destination_down", 15 * MINUTE)
    down = [("PACS", NOW, "calling AE title not recognised"), ("ARCHIVE", NOW, "no route")]
    (condition,) = conditions(Snapshot(down=down, strangers={"PACS"}), [alarm], NOW)
    assert (condition.key, condition.due) == ("PACS", True)


def test_what_waits_for_a_destination_does_not_flap() -> None:
    """A share at its limit is over one percent below it; 100 % is no limit."""
    alarm, known = Alarm("disk"), {("disk", "PACS"): NOW}
    assert found(Snapshot(waiting={"PACS": 0.295}), alarm) == {}
    assert list(found(Snapshot(waiting={"PACS": 0.295}, known=known), alarm)) == [("disk", "PACS")]
    assert found(Snapshot(waiting={"PACS": 0.28}, known=known), alarm) == {}
    assert found(Snapshot(waiting={"PACS": 1.0}, disk=Disk(per_destination=1.0)), alarm) == {}


def test_a_disk_at_its_limit_does_not_flap() -> None:
    """Every limit that is passed is a condition; a known one is over only one percent below."""
    assert list(found(Snapshot(used=0.96), Alarm("disk"))) == [
        ("disk", "warn"), ("disk", "stop_processing"), ("disk", "refuse"),
    ]  # fmt: skip
    assert found(Snapshot(used=0.795), Alarm("disk")) == {}
    known = {("disk", "warn"): NOW}
    assert list(found(Snapshot(used=0.795, known=known), Alarm("disk"))) == [("disk", "warn")]
    assert found(Snapshot(used=0.789, known=known), Alarm("disk")) == {}
    assert found(Snapshot(used=0.6, disk=Disk(0.5, 0.7, 0.9)), Alarm("disk")).keys() == {("disk", "warn")}


# --- once, and the end


def told(rows_: list[Alert], channel: str, now: datetime = NOW) -> tuple[list[News], list[Alert]]:
    """What a channel hears, and the rows after it took it."""
    news = [one for row in rows_ if (one := row.news_for(channel))]
    after = [row.heard(channel, now) if row.news_for(channel) else row for row in rows_]
    return news, [row for row in after if row.over_at is None or row.told]


def test_a_thing_is_told_once_and_its_end_once() -> None:
    """Begin, lasts, over, forgotten: one message for the first and one for the third."""
    parked = [Condition("parked", "PACS", NOW, "1 object")]
    news, state = told(merged([], parked, NOW, ["email"]), "email")
    assert [one.over_at for one in news] == [None]
    news, state = told(merged(state, parked, NOW + MINUTE, ["email"]), "email")
    assert news == []
    news, state = told(merged(state, [], NOW + 2 * MINUTE, ["email"]), "email")
    assert [one.over_at for one in news] == [NOW + 2 * MINUTE]
    assert state == []


def test_what_is_not_due_or_ends_untold_is_never_told() -> None:
    """A condition that ends before its time, or before any channel took it, leaves no message."""
    short = [Condition("parked", "PACS", NOW, "1 object", due=False)]
    rows_ = merged([], short, NOW, ["email"])
    assert told(rows_, "email")[0] == []
    assert merged(rows_, [], NOW + MINUTE, ["email"]) == []


def test_each_channel_hears_by_itself() -> None:
    """One that took nothing hears the begin later and no end of what it never heard; a removed one is forgotten."""
    parked = [Condition("parked", "PACS", NOW, "1 object")]
    names = ["email", "syslog"]
    _, state = told(merged([], parked, NOW, names), "syslog")
    news, _ = told(merged(state, parked, NOW + MINUTE, names), "email")
    assert [one.what for one in news] == ["parked"]
    over = merged(state, [], NOW + MINUTE, names)
    assert told(over, "email")[0] == []
    assert len(told(over, "syslog")[0]) == 1
    assert merged(state, [], NOW + MINUTE, ["email"]) == []


def test_what_comes_back_before_its_end_was_told_goes_on() -> None:
    """A channel that never heard of the end hears nothing when the condition returns."""
    parked = [Condition("parked", "PACS", NOW, "1 object")]
    _, state = told(merged([], parked, NOW, ["email"]), "email")
    over = merged(state, [], NOW + MINUTE, ["email"])
    back = merged(over, parked, NOW + 2 * MINUTE, ["email"])
    assert told(back, "email")[0] == []
    assert (back[0].since, back[0].over_at) == (NOW, None)


def test_after_a_day_changed_words_are_told_again() -> None:
    """The same words never are; another number is, once the day is over."""
    _, state = told(merged([], [Condition("parked", "PACS", NOW, "1")], NOW, ["email"]), "email")
    for words, hours, count in (("1", 25, 0), ("2", 23, 0), ("2", 24, 1)):
        later = NOW + timedelta(hours=hours)
        rows_ = merged(state, [Condition("parked", "PACS", NOW, words)], later, ["email"])
        assert len(told(rows_, "email")[0]) == count, (words, hours)


# --- the channels, for real


class Sink:
    """What came, in order, and how to answer."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.port = 0
        self.refuse = False


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in a thread as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Lines(socketserver.StreamRequestHandler):
    """An SMTP server that takes a mail, or refuses it (RFC 5321)."""

    def handle(self) -> None:
        """One dialogue."""
        sink: Sink = self.server.sink  # type: ignore[attr-defined]
        self.wfile.write(b"220 sink\r\n")
        envelope: list[str] = []
        while line := self.rfile.readline():
            verb = line.split()[0].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                data = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    data += part
                sink.got.append((envelope, message_from_bytes(data, policy=policy.default)))
                envelope = []
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            elif verb in (b"MAIL", b"RCPT"):
                envelope.append(line.decode().strip())
                if sink.refuse:
                    self.wfile.write(b"550 not from you\r\n")
                    continue
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def mail() -> Iterator[Sink]:
    """A mail server on loopback."""
    sink = Sink()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Lines) as server:
        server.sink = sink  # type: ignore[attr-defined]
        sink.port = server.server_address[1]
        with serving(server):
            yield sink


@pytest.fixture
def web() -> Iterator[Sink]:
    """An HTTP server on loopback that takes POSTs."""
    sink = Sink()

    class Post(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(302 if sink.refuse else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Post) as server:
        sink.port = server.server_address[1]
        with serving(server):
            yield sink


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    """A UDP port on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.1", 0))
        channel.settimeout(60)
        yield channel


Node = Callable[[str], Settings]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Settings of a site whose data is in the test's folder, with the `alerts` that the test gives."""

    def made(text: str) -> Settings:
        head = "node: {ae_titles: [NODE1], listen: 127.0.0.1:1, timezone: Europe/Berlin, data: ., rules: r}\n"
        disk = "disk: {warn: 98 %, stop_processing: 99 %, refuse: 100 %}\n"
        return site.parse(head + disk + text, str(tmp_path / "node.yaml"), {})

    return made


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Database]:
    """An empty node's database."""
    database = open_database("sqlite", tmp_path)
    yield database
    database.close()


def down(tables: Database, since: datetime) -> None:
    """The destination PACS cannot be reached."""
    with tables.write() as tx:
        tx.execute(
            insert(destination).values(name="PACS", down=True, reason="no way", since=since, failures=3)
        )


def up(tables: Database) -> None:
    """It can be reached again."""
    with tables.write() as tx:
        tx.execute(update(destination).values(down=False, reason="", since=None))


def events(tables: Database) -> list[str]:
    """The names of all events."""
    with tables.read() as tx:
        return [row["name"] for row in rows(tx, event.select().order_by(event.c.id))]


def test_all_channels_hear_of_a_destination_that_is_down_and_up_again(
    node: Node, tables: Database, mail: Sink, web: Sink, syslog: socket.socket
) -> None:
    """One mail, one POST and one datagram for the begin and for the end, with the site's own times."""
    settings = node(f"""\
alerts:
  email: {{to: [a@h.example, b@h.example], from: n@h.example, host: 127.0.0.1, port: {mail.port}}}
  webhook: http://127.0.0.1:{web.port}/hook?token=1
  syslog: 127.0.0.1:{syslog.getsockname()[1]}
  when: [destination_down 15 min]
""")
    down(tables, NOW)
    check(settings, tables, NOW + 14 * MINUTE)
    assert (mail.got, web.got) == ([], [])
    for minute in (15, 16, 60):
        check(settings, tables, NOW + minute * MINUTE)
    up(tables)
    for minute in (61, 62):
        check(settings, tables, NOW + minute * MINUTE)
    (envelope, begin), (_, end) = mail.got
    assert envelope[1:] == ["rcpt TO:<a@h.example>", "rcpt TO:<b@h.example>"]
    assert begin["Subject"].startswith("PACSNode NODE1 on ")
    assert begin["Subject"].endswith(": destination_down")
    assert begin["Auto-Submitted"] == "auto-generated"
    assert "destination_down PACS since 2026-03-02 11:00:00 CET: no way" in begin.get_content()
    assert "is over since 2026-03-02 12:01:00 CET" in end.get_content()
    (path, kind, first), (_, _, second) = web.got
    assert (path, kind) == ("/hook?token=1", "application/json")
    assert [one["state"] for one in first["news"] + second["news"]] == ["begun", "over"]
    assert "destination_down PACS" in first["text"]
    lines = [syslog.recv(4096).decode() for _ in range(2)]
    assert lines[0].startswith("<28>1 2026-03-02T10:15:00.000+00:00 ")
    assert " pacsnode - destination_down - \ufeffdestination_down PACS since" in lines[0]
    assert lines[1].startswith("<29>1 ")
    assert events(tables) == ["alert_told", "alert_over"]
    with tables.read() as tx:
        assert rows(tx, alert.select()) == []


def test_a_channel_that_fails_is_tried_again_and_holds_up_nobody(
    node: Node, tables: Database, mail: Sink, web: Sink
) -> None:
    """A mail server that refuses hears it when it takes it again; the webhook heard it once, at once."""
    settings = node(f"""\
alerts:
  email: {{to: a@h.example, from: n@h.example, host: 127.0.0.1, port: {mail.port}}}
  webhook: http://127.0.0.1:{web.port}/
  when: [destination_down 0 s]
""")
    mail.refuse = True
    down(tables, NOW)
    for half in range(4):
        check(settings, tables, NOW + half * MINUTE / 2)
    assert (len(mail.got), len(web.got)) == (0, 1)
    mail.refuse = False
    for half in range(4, 6):
        check(settings, tables, NOW + half * MINUTE / 2)
    assert (len(mail.got), len(web.got)) == (1, 1)
    assert events(tables) == ["alert_told", "alert_untold"]
    up(tables)
    check(settings, tables, NOW + 4 * MINUTE)
    assert (len(mail.got), len(web.got)) == (2, 2)


def test_who_cannot_remember_tells_once(node: Node, tables: Database, web: Sink) -> None:
    """The disk fills between telling and writing it down: it is not told again every half minute."""
    settings = node(f"alerts: {{webhook: 'http://127.0.0.1:{web.port}/', when: [destination_down 0 s]}}")
    down(tables, NOW)
    full = "BEFORE INSERT ON {} BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
    with tables.write() as tx:
        tx.execute(text("CREATE TRIGGER no_event " + full.format("event")))
    check(settings, tables, NOW)
    with tables.write() as tx:
        tx.execute(text("CREATE TRIGGER no_alert " + full.format("alert")))
    for half in range(1, 6):
        check(settings, tables, NOW + half * MINUTE / 2)
    assert len(web.got) == 1


def test_a_redirect_is_no_success(node: Node, tables: Database, web: Sink) -> None:
    """An answer other than 2xx means that nobody took it; the redirect is not followed."""
    settings = node(f"alerts: {{webhook: 'http://127.0.0.1:{web.port}/x', when: [destination_down 0 s]}}")
    web.refuse = True
    down(tables, NOW)
    check(settings, tables, NOW)
    check(settings, tables, NOW + MINUTE)
    assert [path for path, _, _ in web.got] == ["/x", "/x"]
    assert events(tables) == ["alert_untold"]


def test_a_silent_mail_server_is_given_up(
    node: Node, tables: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and says nothing, and a port where nobody is, end in time and raise nothing."""
    monkeypatch.setattr("node.ops.channels.PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = node(f"""\
alerts:
  email: {{to: a@h, from: n@h, host: 127.0.0.1, port: {silent.getsockname()[1]}}}
  webhook: http://127.0.0.1:{free_port()}/
  when: [destination_down 0 s]
""")
        down(tables, NOW)
        check(settings, tables, NOW)
    assert sorted(events(tables)) == ["alert_untold", "alert_untold"]


def test_a_database_that_fails_is_no_reason_to_raise(node: Node, tables: Database, mail: Sink) -> None:
    """Without its table the check tells nothing, for it could not remember, and returns."""
    with tables.write() as tx:
        alert.drop(tx)
    down(tables, NOW)
    text = f"{{to: a@h, from: n@h, host: 127.0.0.1, port: {mail.port}}}"
    check(node(f"alerts: {{email: {text}, when: [destination_down 0 s]}}"), tables, NOW)
    assert mail.got == []


def test_what_the_tables_hold_becomes_conditions(
    node: Node, tables: Database, web: Sink, tmp_path: Path
) -> None:
    """Parked deliveries, objects aside, refused rules, silence and a dead conductor are found in a real database."""
    settings = node(f"""\
alerts:
  webhook: http://127.0.0.1:{web.port}/
  when: [parked, set_aside, rules_refused, conductor_down 0 s, no_objects 1 h, quarantined, series_attention]
""")
    health.beat(health.beat_path(tmp_path), (NOW - 5 * MINUTE).timestamp())
    with tables.write() as tx:
        for _ in range(3):
            tx.execute(
                insert(delivery).values(
                    destination="PACS", state="parked", rule="r", instance_id=None, due_at=NOW, created_at=NOW
                )
            )
        tx.execute(
            insert(instance).values(
                receiver_run=1,
                sequence=1,
                state="unreadable",
                sop_class="",
                transfer_syntax="",
                digest="",
                pixel_digest="",
                size=1,
                peer="CT",
                association="1-1",
                received_at=NOW - timedelta(hours=2),
            )
        )
        tx.execute(insert(meta).values(key="rules_problem", value="rules/a.yaml:3: unknown key wen"))
    check(settings, tables, NOW)
    said = {one["what"]: one for one in web.got[0][2]["news"]}
    assert said.keys() == {"parked", "set_aside", "rules_refused", "conductor_down", "no_objects"}
    assert "refused for good: 3 objects" in said["parked"]["detail"]
    assert "rules/a.yaml:3" in said["rules_refused"]["detail"]
    assert "wen" not in said["rules_refused"]["detail"]
    with tables.write() as tx:
        tx.execute(delete(delivery))
    check(settings, tables, NOW + MINUTE)
    assert [one["what"] for one in web.got[1][2]["news"]] == ["parked"]


def test_nothing_is_asked_where_nobody_is_told(node: Node, tables: Database) -> None:
    """Without a channel the tables are left alone, whatever is wrong."""
    down(tables, NOW)
    check(node(""), tables, NOW)
    assert events(tables) == []


def test_a_line_of_syslog_fits_its_datagram(syslog: socket.socket) -> None:
    """However long the words, 2048 bytes are sent, on one line."""
    news = News("parked", "P", NOW, "two\nlines " + "ä" * 3000)
    Syslog("127.0.0.1", syslog.getsockname()[1]).tell(Message("n", NOW, (news,)))
    line = syslog.recv(65536)
    assert len(line) == 2048
    assert b"\n" not in line


def test_the_interval_of_a_reminder_is_a_day() -> None:
    """The documentation says that changed words are told again after a day."""
    assert timedelta(days=1) == alerts.AGAIN
