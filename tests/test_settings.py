"""The site file: what it means, and that every mistake is named with its place."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from node import app, settings
from node.errors import Misconfigured
from node.settings import Alarm, Alerts, Disk, Keep, Limits, PeerTls, SealPolicy, Settings, Tls, Web, reading

NODE = """\
node:
  ae_titles: [PACSNODE, PACSNODE_STAT]
  listen: 0.0.0.0:11112
  timezone: Europe/Berlin
  data: /srv/pacsnode
  rules: ./rules
"""


def read(text: str = "", **environ: str) -> Settings:
    """Parse a site file made of a valid `node` part and *text*."""
    return settings.parse(NODE + text, "/etc/site/node.yaml", environ)


def mistakes(text: str = "", node: str = NODE, **environ: str) -> list[str]:
    """Return the sentences that *text* is refused with, its own lines counted from 1."""
    with pytest.raises(Misconfigured) as caught:
        settings.parse(node + text, "f", environ)
    return list(caught.value.mistakes)


def test_a_small_file_is_enough() -> None:
    """The `node` part alone gives every setting, with the defaults that the shipped file documents."""
    found = read()
    assert found.node.ae_titles == ("PACSNODE", "PACSNODE_STAT")
    assert found.node.listen == ("0.0.0.0", 11112)
    assert found.node.data == Path("/srv/pacsnode")
    assert found.node.rules == Path("/etc/site/rules")
    assert found.node.durability == "power"
    assert 1 <= found.node.receivers <= 4
    assert (found.unknown_senders, found.state, found.engine) == ("refuse", "sqlite", "local")
    assert found.disk == Disk(0.80, 0.88, 0.95)
    assert found.seal[0].policy == SealPolicy(
        timedelta(seconds=60), False, timedelta(seconds=1), timedelta(hours=2)
    )
    assert found.seal[0].when is None
    assert found.limits == Limits(workers=found.limits.workers)


def test_the_shipped_file_works() -> None:
    """`config/node.yaml` is accepted as it is and holds the peers that the README speaks of."""
    path = Path(__file__).parents[1] / "config" / "node.yaml"
    found = settings.load(path, {})
    assert found.node.rules.resolve() == path.parents[1] / "rules"
    assert set(found.peers) == {"PACS", "CT01", "MR01"}
    assert found.peers["PACS"].receives
    assert not found.peers["CT01"].receives


def test_everything_can_be_said() -> None:
    """Each key of the site file arrives typed, in the unit its name promises."""
    found = read("""\
unknown_senders: accept
peers:
  CT01: {sends_as: [CT01, C2], from_address: [10.1.2.3, 10.9.0.0/16], seal: {on_release: yes, settle: 500 ms},
    durability: process, tls: {client_names: [ct01.example]}}
  PACS: {ae_title: ORTHANC, address: pacs.example:4242, call_as: NODE2, associations: 3, redeliver_after: 1 h}
  RESEARCH: {ae_title: XNAT, address: "[2001:db8::1]:104", sends_as: [], only: deidentified, tls: {incoming: optional,
    server_name: xnat.example, check_name: no, trusted: xnat.pem, certificate: us.pem, key: us.key}}
seal:
  - {when: {Modality: US}, quiet_for: 10 min}
  - {quiet_for: 90 s, attention_after: 1 h}
disk: {warn: 50 %, stop_processing: 60 %, refuse: 70.5 %}
limits: {associations: 7, connections: 40, connections_per_address: 9, artim: 5 s, idle: 1 min, pdu: 3 s,
  object_size: 5 GB, run_time: 90 s, run_memory: 2 GiB, workers: 3}
tls: {listen: 0.0.0.0:2762, certificate: tls/node.pem, key: tls/node.key, trusted: /etc/ssl/ca.pem,
  clients: optional, minimum: "1.3"}
state: postgresql://node@db/pacsnode
engine: local
""")
    scanner, pacs, research = found.peers.values()
    assert scanner.from_address == ("10.1.2.3/32", "10.9.0.0/16")
    assert scanner.seal == SealPolicy(on_release=True, settle=timedelta(milliseconds=500))
    assert scanner.seal_given == {"on_release", "settle"}
    assert (pacs.seal, pacs.seal_given) == (None, frozenset())
    assert (pacs.host, pacs.port, pacs.call_as, pacs.associations) == ("pacs.example", 4242, "NODE2", 3)
    assert pacs.sends_as == ("ORTHANC",)
    assert pacs.redeliver_after == timedelta(hours=1)
    assert (research.host, research.sends_as, research.only) == ("2001:db8::1", (), "deidentified")
    assert found.seal[0].when is not None
    assert found.seal[0].when.plain() == {"Modality": "US"}
    assert [line.policy.quiet_for.total_seconds() for line in found.seal] == [600, 90]
    assert found.disk == Disk(0.5, 0.6, 0.705)
    assert found.limits == Limits(
        associations=7,
        connections=40,
        connections_per_address=9,
        artim=timedelta(seconds=5),
        idle=timedelta(minutes=1),
        pdu=timedelta(seconds=3),
        object_size=5 * 10**9,
        run_time=timedelta(seconds=90),
        run_memory=2 * 2**30,
        workers=3,
    )
    here = Path("/etc/site")
    assert found.tls == Tls(
        here / "tls/node.pem",
        here / "tls/node.key",
        Path("/etc/ssl/ca.pem"),
        ("0.0.0.0", 2762),
        "optional",
        "1.3",
    )
    assert scanner.tls == PeerTls(client_names=("ct01.example",))
    assert (pacs.tls, pacs.durability) == (None, None)
    assert research.tls == PeerTls(
        "optional", (), "xnat.example", False, here / "xnat.pem", here / "us.pem", here / "us.key"
    )
    assert [found.durability_of(name) for name in ("CT01", "PACS", "STRANGER")] == [
        "process",
        "power",
        "power",
    ]
    assert found.state == "postgresql://node@db/pacsnode"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unknown_sender: refuse", "f:7:1: unknown key unknown_sender; did you mean unknown_senders?"),
        ("unknown_senders: accpet", "f:7:1: accpet is not one of refuse, accept; did you mean accept?"),
        ("peers: {A: {sends_as: A, adress: x:1}}", "f:7:26: unknown key adress; did you mean address?"),
        ("peers: {A: {sends_as: [SEVENTEEN_LETTERS]}}", "AE title SEVENTEEN_LETTERS has 17 characters"),
        ("peers: {A: {sends_as: ['A\\B']}}", "plain ASCII without backslash"),
        ('peers: {A: {sends_as: ["A\\tB"]}}', "plain ASCII without backslash or control"),
        ("peers: {A: {sends_as: ['   ']}}", "not all spaces"),
        ("peers: {A: {sends_as: [KÖLN]}}", "plain ASCII"),
        ("peers: {A: {from_address: 10.1.2.3}}", "peer A needs sends_as"),
        ("peers: {A: {address: h:104}}", "peer A has an address but no ae_title"),
        ("peers: {A: {sends_as: A, call_as: B}}", "call_as needs an address"),
        ("peers: {A: {sends_as: A, only: deidentified}}", "only needs an address"),
        ("peers: {A: {ae_title: A, address: h:0}}", "expected host:port"),
        ("peers: {A: {ae_title: A, address: h:99999}}", "port 99999 is above 65535"),
        ("peers: {A: {ae_title: A, address: 10.1.2.3}}", "expected host:port"),
        ("peers: {A: {ae_title: A, address: h:1, only: deidentifed}}", "did you mean deidentified?"),
        ("peers: {A: {ae_title: A, address: h:1, associations: 0}}", "0 is too small; the least is 1"),
        ("peers: {A: {sends_as: A, from_address: [ct.example]}}", "'ct.example' is not an IP address"),
        ("peers: {A: {sends_as: A, from_address: [10.1.2.3/24]}}", "did you mean 10.1.2.0/24?"),
        ("peers: {A: {sends_as: A, from_address: []}}", "leave it out to allow any address"),
        ("peers: {A B: {sends_as: A}}", "peer name 'A B' must be"),
        ("peers: {A: {sends_as: A}, a: {sends_as: B}}", "differs from A only in case"),
        ("peers: [A]", "expected a mapping from peer name to peer"),
        ("seal: [{quiet_for: 1 min}, {quiet_for: 2 min}]", "this line is never reached"),
        ("seal: [{when: {Modality: US}}]", "the last line under seal must have no when"),
        ("seal: [{when: US}, {quiet_for: 60 s}]", "expected a mapping of conditions"),
        ("seal: [{quiet_for: 60}]", "expected a duration such as 45 s"),
        ("seal: [{quiet_for: 0 s}]", "longer than 0 s"),
        ("disk: {warn: 90 %}", "disk shares must rise"),
        ("disk: {warn: 0.8}", "expected a percentage"),
        ("disk: {per_destination: 0 %}", "per_destination must be more than nothing"),
        ("peers: {A: {ae_title: A, address: h:1, window: night}}", "expected a window such as 19:00-06:00"),
        ("peers: {A: {ae_title: A, address: h:1, window: 19:00-25:00}}", "no time of the day"),
        ("peers: {A: {ae_title: A, address: h:1, window: 08:00-08:00}}", "the whole day is 00:00-24:00"),
        ("peers: {A: {ae_title: A, address: h:1, window: mon-fry 08:00-09:00}}", "fry is no day"),
        ("peers: {A: {ae_title: A, window: 08:00-09:00}}", "window needs an address"),
        (
            "peers: {A: {ae_title: A, address: h:1, transfer_syntaxes: [JPEG2000Loseless]}}",
            "did you mean JPEG2000Lossless?",
        ),
        (
            "peers: {A: {ae_title: A, address: h:1, commit: {within: 0 s}}}",
            "within must be more than nothing",
        ),
        ("peers: {A: {ae_title: A, address: h:1, commit_after: B}}", "there is no peer B"),
        (
            "peers: {A: {ae_title: A, address: h:1, commit_after: B}, B: {ae_title: B, address: h:1, sends_as: [X]}}",
            "peer B has no commit: yes",
        ),
        ("limits: {run_memory: 4}", "expected a size"),
        ("limits: {workers: many}", "expected a whole number"),
        ("state: mysql://x", "state must be sqlite or postgresql://"),
        ("engine: dask://h:8786", "engine dask is not available in this version"),
        ("engine: spark", "spark is not one of local"),
        ("keep: {deliverd: 3 d}", "unknown key deliverd; did you mean delivered?"),
        ("keep: {delivered: until_delivered}", "expected a duration"),
        ("web: {}", "listen is missing"),
        ("web: {listen: 8080}", "expected host:port"),
        ("peers: {A: {sends_as: A, shows: SR}}", "shows needs an address"),
        ("peers: {A: {ae_title: A, address: h:1, shows: [image]}}", "image is not one of images, SEG"),
        (
            "peers: {A: {ae_title: A, address: h:1, shows: []}}",
            "leave it out where the peer shows everything",
        ),
        ("alerts: {when: parked}", "nobody would be told"),
        ("alerts: {syslog: h:514, when: [destinaton_down]}", "did you mean destination_down?"),
        ("alerts: {syslog: h:514, when: [no_objects]}", "no_objects needs how long"),
        ("alerts: {syslog: h:514, when: [parked soon]}", "parked needs how long"),
        ("alerts: {syslog: h:514, when: [disk, disk 1 h]}", "disk is given twice"),
        ("alerts: {webhook: 'ftp://h/x'}", "expected a URL"),
        ("alerts: {webhook: 'http://h/a b'}", "expected a URL"),
        ("alerts: {email: {to: A, from: a@h, host: m}}", "expected an address such as"),
        ("alerts: {email: {to: [], from: a@h, host: m}}", "at least one address"),
        ("alerts: {email: {to: a@h, host: m}}", "from is missing"),
        ("alerts: {email: {to: a@h, from: a@h, host: m, user: u}}", "belong together"),
        ("alerts: {email: {to: a@h, from: a@h, host: m, user: u, password: p}}", "starttls: yes"),
        (
            "alerts: {email: {to: a@h, from: a@h, host: m, starttls: yes, user: u, password: p, password_file: f}}",
            "not both",
        ),
        ("tls: {certificate: a, key: b}", "trusted is missing"),
        ("tls: {certificate: a, key: b, trusted: c, listen: 2762}", "expected host:port"),
        ('tls: {certificate: a, key: b, trusted: c, listen: "0.0.0.0:11112"}', "TLS needs a port of its own"),
        ("tls: {certificate: a, key: b, trusted: c, minimum: 1.1}", "1.1 is not one of 1.2, 1.3"),
        ("peers: {A: {sends_as: A, tls: {incoming: optional, sever_name: x}}}", "did you mean server_name?"),
        ("peers: {A: {sends_as: A, tls: yes}}", "give the site tls.listen"),
        ("peers: {A: {sends_as: A, ae_title: A, address: h:1, tls: yes}}", "give `tls:` of the site"),
        (
            "peers: {A: {sends_as: A, tls: {incoming: optional, key: k}}}",
            "certificate and key belong together",
        ),
        ("peers: {A: {sends_as: A, tls: {incoming: optional, client_names: []}}}", "client_names is empty"),
        (
            "peers: {A: {sends_as: A, tls: {incoming: optional, client_names: [a]}}}",
            "incoming cannot be optional",
        ),
        ("peers: {A: {sends_as: A, durability: disk}}", "disk is not one of power, process"),
        ("limits: {idle: 0 s}", "idle must be more than nothing"),
        ("limits: {connections: 10}", "connections are fewer than the 64 associations"),
    ],
)
def test_a_mistake_is_named(text: str, expected: str) -> None:
    """One mistake gives one sentence, with file and line and what would be right."""
    (sentence,) = mistakes(text)
    assert sentence.startswith("f:7:")
    assert expected in sentence


def test_what_is_never_processed_is_read_with_its_place() -> None:
    """The blocks are compiled like a rule's `when`; an empty one, which would bar everything, is a mistake."""
    found = read("never_process: [{PatientID: {matches: 'QA-*'}}, {StationName: TEST}]")
    never = app.never_lines(found)
    assert [place for _, place in never] == ["line 7 of the site file", "line 7 of the site file"]
    assert [line.name for when, _ in never for line in when.conditions()] == ["PatientID", "StationName"]
    for text in ("never_process: [{}]", "never_process: [{PatientIDD: x}]", "never_process: [x]"):
        with pytest.raises(Misconfigured):
            app.never_lines(read(text))


def test_how_a_peer_is_sent_to_is_read() -> None:
    """Windows, transfer syntaxes, commitment and rejection notes of a peer are values with defaults."""
    text = (
        "peers:\n  A: {ae_title: A, address: h:1, window: [mon-fri 19:00-06:00, sun 0:00-24:00], iocm: yes,\n"
        "      transfer_syntaxes: [JPEG2000Lossless, 1.2.840.10008.1.2], commit: {address: i:2, within: 2 h}}\n"
        "  B: {ae_title: B, address: h:1, sends_as: [B], commit: yes, commit_after: A}\n"
        "  C: {ae_title: C, address: h:1, commit: no}"
    )
    peers = settings.parse(NODE + text, "f", {}).peers
    a, b, c = peers["A"], peers["B"], peers["C"]
    assert a.commit == settings.Commit("A", "i", 2, timedelta(hours=2))
    assert a.iocm and not b.iocm
    assert a.transfer_syntaxes == ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2")
    assert b.commit == settings.Commit("B", "h", 1, timedelta(hours=24))
    assert (b.commit_after, c.commit, c.window) == ("A", None, ())
    assert [(sorted(w.days), w.start, w.end) for w in a.window] == [
        ([0, 1, 2, 3, 4], timedelta(hours=19), timedelta(hours=6)),
        ([6], timedelta(0), timedelta(hours=24)),
    ]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-02 18:59:59", False),  # a Monday
        ("2026-03-02 19:00:00", True),
        ("2026-03-03 05:59:59", True),
        ("2026-03-03 06:00:00", False),
        ("2026-03-06 23:00:00", True),  # Friday, until Saturday morning
        ("2026-03-07 05:00:00", True),
        ("2026-03-07 19:00:00", False),
        ("2026-03-08 12:00:00", True),  # Sunday
        ("2026-03-02 05:00:00", False),  # Sunday's is over at midnight
    ],
)
def test_a_window_past_midnight_belongs_to_the_day_it_begins_on(at: str, expected: bool) -> None:
    """A window that ends before it begins goes on into the next day, whatever that day is called."""
    text = "peers: {A: {ae_title: A, address: h:1, window: [mon-fri 19:00-06:00, sun 0:00-24:00]}}"
    window = settings.parse(NODE + text, "f", {}).peers["A"].window
    assert settings.is_open(window, datetime.fromisoformat(at)) is expected
    assert settings.is_open((), datetime.fromisoformat(at))


@pytest.mark.parametrize(
    ("said", "notice"),
    [
        ("", "For research use. Not for primary diagnosis."),
        (", notice: Nur zur Forschung", "Nur zur Forschung"),
        (', notice: ""', ""),
    ],
)
def test_the_notice_of_reports_is_the_sites(said: str, notice: str) -> None:
    """What results are for is said in the site's words, else in ours, and not at all where it is empty."""
    node = f"node: {{ae_titles: [A], listen: '0.0.0.0:104', timezone: UTC, data: d, rules: r{said}}}\n"
    assert settings.parse(node, "f", {}).node.notice == notice


def test_a_notice_is_a_line_not_a_page() -> None:
    """A notice of more than 200 characters is refused with its length."""
    node = f"node: {{ae_titles: [A], listen: '0.0.0.0:104', timezone: UTC, data: d, rules: r, notice: {'a' * 201}}}\n"
    assert "the notice has 201 characters; say it in 200" in mistakes("", node=node)[0]


def test_all_mistakes_come_at_once() -> None:
    """One reading names everything that is wrong, so that a file is not mended line by line."""
    node = "node: {ae_titles: [], listen: 104, timezone: Europe/Berln, data: d, durability: disk}\n"
    found = mistakes("engine: fast\nunknown: x\n", node=node)
    assert len(found) == 7
    assert any("did you mean Europe/Berlin?" in sentence for sentence in found)
    assert any("rules is missing" in sentence for sentence in found)


@pytest.mark.parametrize("text", ["", "[]", "- a", "a: 1\n---\nb: 2", "node: [", "node: {}\nnode: {}"])
def test_what_is_no_site_file_is_refused(text: str) -> None:
    """An empty file, a list, two documents, broken YAML or a doubled key is refused with a place."""
    assert mistakes(text, node="")[0].startswith("f:")


@pytest.mark.parametrize("second", ["from_address: 10.1.0.0/16", "from_address: [10.2.0.0/16, 10.1.2.3]", ""])
def test_two_peers_cannot_be_one_sender(second: str) -> None:
    """Two peers that call as the same title from overlapping addresses are refused."""
    (sentence,) = mistakes(
        f"peers:\n  A: {{sends_as: CT, from_address: 10.1.2.3}}\n  B: {{sends_as: CT, {second}}}"
    )
    assert sentence.startswith("f:9:3: peers A and B both send as CT")


def test_the_address_tells_peers_apart() -> None:
    """The same calling title from disjoint networks is two peers; elsewhere it is unknown."""
    found = read("""\
peers:
  A: {sends_as: CT, from_address: 10.1.0.0/16}
  B: {sends_as: CT, from_address: ["2001:db8::/32", 10.2.0.0/16]}
  C: {sends_as: [MR]}
""")
    assert found.peer_of("CT", "10.1.2.3") == "A"
    assert found.peer_of("CT ", "::ffff:10.2.2.3") == "B"
    assert found.peer_of("CT", "2001:db8::5") == "B"
    assert found.peer_of("CT", "10.3.2.3") is None
    assert found.peer_of("CT", "not an address") is None
    assert found.peer_of("ct", "10.1.2.3") is None
    assert found.peer_of("MR", "192.0.2.1") == "C"


def test_what_is_kept_told_and_shown_can_be_said() -> None:
    """`keep`, `alerts`, `web` and a peer's `shows` arrive typed; files are named from the site file's folder."""
    found = read("""\
peers: {PACS: {ae_title: A, address: h:1, shows: [images, SR]}}
keep: {delivered: 12 h, undelivered: 60 d}
alerts:
  email: {to: [a@h.example, b@h.example], from: n@h.example, host: mail, port: 587, starttls: yes, user: n,
    password_file: secret}
  webhook: https://chat.example/hook?token=1
  syslog: 10.1.2.3:514
  when: [destination_down 15 min, parked, no_objects 2 h]
web: {listen: "[::1]:8080"}
""")
    assert found.peers["PACS"].shows == {"images", "SR"}
    assert (found.keep.delivered, found.keep.unrouted) == (timedelta(hours=12), timedelta(days=7))
    assert found.keep.undelivered == timedelta(days=60)
    assert read("keep: {undelivered: until_delivered}").keep == Keep()
    email = found.alerts.email
    assert email is not None
    assert (email.to, email.sender) == (("a@h.example", "b@h.example"), "n@h.example")
    assert (email.host, email.port, email.starttls) == ("mail", 587, True)
    assert email.password_file == Path("/etc/site/secret")
    assert found.alerts.syslog == ("10.1.2.3", 514)
    assert found.alerts.when == (
        Alarm("destination_down", timedelta(minutes=15)), Alarm("parked"), Alarm("no_objects", timedelta(hours=2))
    )  # fmt: skip
    assert found.web == Web(("::1", 8080))


def test_without_a_list_the_usual_alarms_are_told() -> None:
    """A channel alone is enough: what design and README promise is told, a destination after a quarter of an hour."""
    told = read("alerts: {syslog: 10.1.2.3:514}").alerts.when
    assert [alarm.what for alarm in told] == [
        "destination_down", "parked", "quarantined", "disk", "rules_refused", "tls_certificate",
    ]  # fmt: skip
    assert told[0].after == timedelta(minutes=15)
    assert read().alerts == Alerts()


def test_a_missing_password_file_stops_the_start_but_no_role(tmp_path: Path) -> None:
    """Loading the file names what cannot be read; parsing its text, as a restarted receiver does, goes on."""
    text = NODE + "alerts: {email: {to: a@h, from: a@h, host: localhost, user: u, password_file: gone}}"
    site = tmp_path / "node.yaml"
    site.write_text(text)
    with pytest.raises(Misconfigured, match=r"password_file: .*gone cannot be read"):
        settings.load(site, {})
    assert settings.parse(text, str(site), {}).alerts.email is not None


def test_a_secret_may_come_from_the_environment() -> None:
    """A password and a webhook's token are taken from variables and never printed."""
    text = "alerts: {email: {to: a@h, from: a@h, host: localhost, user: u}}"
    found = read(text, PACSNODE__ALERTS__EMAIL__PASSWORD="s3cret", PACSNODE__ALERTS__WEBHOOK="http://h/t0ken")
    assert found.alerts.email is not None
    assert found.alerts.email.password == "s3cret"
    assert found.alerts.webhook == "http://h/t0ken"
    assert "s3cret" not in repr(found)
    assert "t0ken" not in repr(found)


PEERS = "peers:\n  PACS: {ae_title: P, address: h:1}\n  CT-01: {sends_as: [CT]}\n"


def test_the_environment_overrides_the_file() -> None:
    """A variable replaces a value, adds a missing one, and finds a peer whatever its case or dashes."""
    found = read(
        PEERS,
        PACSNODE__NODE__LISTEN="127.0.0.1:104",
        PACSNODE__WEB__LISTEN="[::]:8080",
        PACSNODE__NODE__AE_TITLES="[ONE, TWO]",
        PACSNODE__PEERS__PACS__ADDRESS="'[::1]:4242'",
        PACSNODE__PEERS__CT_01__SEAL__ON_RELEASE="yes",
        PACSNODE__DISK__WARN="70 %",
        PACSNODE__SEAL="[{quiet_for: 5 s}]",
        PACSNODE_CONFIG="not a key",
    )
    assert found.node.listen == ("127.0.0.1", 104)
    assert found.web == Web(("::", 8080))
    assert found.node.ae_titles == ("ONE", "TWO")
    assert (found.peers["PACS"].host, found.peers["PACS"].port) == ("::1", 4242)
    assert found.peers["CT-01"].seal == SealPolicy(on_release=True)
    assert found.disk.warn == 0.70
    assert found.seal[0].policy.quiet_for == timedelta(seconds=5)


def test_a_whole_part_is_overridden_before_its_keys() -> None:
    """`…__LIMITS` replaces the mapping and `…__LIMITS__WORKERS` then one key of it."""
    found = read("", PACSNODE__LIMITS__WORKERS="5", PACSNODE__LIMITS="{associations: 3}")
    assert (found.limits.associations, found.limits.workers) == (3, 5)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PACSNODE__NODE__LISTEN", "104", "expected host:port"),
        ("PACSNODE__NODE__LISTN", "x:104", "unknown key listn; did you mean listen?"),
        (
            "PACSNODE__PEERS__PACKS__ADDRESS",
            "h:1",
            "no peer of the site file is named PACKS; did you mean PACS?",
        ),
        ("PACSNODE__NODE__LISTEN", "", "one value"),
        ("PACSNODE__NODE____LISTEN", "h:1", "expected a name such as"),
        ("PACSNODE__NODE__AE_TITLES__0", "X", "below a list or a single value"),
        ("PACSNODE__NODE", "{a: [", "not valid YAML"),
        ("PACSNODE__WEB", "{}", "listen is missing"),
        ("PACSNODE__KEEP__DELIVERD", "1 d", "unknown key deliverd; did you mean delivered?"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, expected: str) -> None:
    """What is wrong with a variable is said with its name, typed by the same shape as the file."""
    sentence = mistakes(PEERS, **{name: value})[0]
    assert sentence.startswith(name)
    assert expected in sentence


def test_a_database_password_is_not_shown() -> None:
    """The printed settings do not hold the database URL or the file's text."""
    assert "secret" not in repr(read("state: postgresql://node:secret@db/pacsnode"))


@effort(deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_no_text_breaks_the_parser(text: str, value: str) -> None:
    """Any text at all gives Settings or Misconfigured, never another exception."""
    for attempt in (
        text,
        NODE + text,
        NODE + f"peers: {{A: {{sends_as: {value!r}, from_address: {value!r}}}}}",
        NODE + f"alerts: {{webhook: {value!r}, when: {value!r}, email: {{to: {value!r}, port: {value!r}}}}}",
        NODE + f"keep: {{delivered: {value!r}}}\nweb: {{listen: {value!r}}}",
    ):
        try:
            settings.parse(attempt, "f", {"PACSNODE__NODE__LISTEN": value})
        except Misconfigured as error:
            assert error.mistakes


def test_the_site_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins over the variable, the variable over ./config/node.yaml; else the way out is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "_PLACES", (Path("config/node.yaml"), tmp_path / "etc" / "node.yaml"))
    with pytest.raises(Misconfigured, match="name one with --config FILE or PACSNODE_CONFIG=FILE"):
        settings.find(None, {"PACSNODE_CONFIG": ""})
    for place in (tmp_path / "etc" / "node.yaml", tmp_path / "config" / "node.yaml"):
        place.parent.mkdir()
        place.touch()
        assert settings.find(None, {}).absolute() == place
    assert settings.find(None, {"PACSNODE_CONFIG": "a.yaml"}) == Path("a.yaml")
    assert settings.find("b.yaml", {"PACSNODE_CONFIG": "a.yaml"}) == Path("b.yaml")


def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    """A file that is absent or not UTF-8 is refused in words."""
    with pytest.raises(Misconfigured, match="cannot be read"):
        settings.load(tmp_path / "none.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"node: {ae_titles: [K\xd6LN]}")
    with pytest.raises(Misconfigured, match="not UTF-8"):
        settings.load(tmp_path / "latin.yaml", {})


def test_who_is_asked_for_counts() -> None:
    """`count_from` is the source, a peer with an address, or nobody; each other word is a mistake with its line."""
    found = read("""
peers:
  CT01: {sends_as: [CT01], seal: {count_from: PACS, count_patience: 5 min, mpps: no}}
  MR01: {ae_title: MR01, address: "10.1.2.3:104", seal: {count_from: source}}
  PACS: {ae_title: PACS, address: "10.1.2.9:104"}
seal:
  - {when: {Modality: US}, count_from: source}
  - {quiet_for: 60 s, count_from: no}
""")
    scanner = found.peers["CT01"].seal
    assert scanner == SealPolicy(count_from="PACS", count_patience=timedelta(minutes=5), mpps=False)
    assert found.peers["MR01"].seal == SealPolicy(count_from=settings.SOURCE)
    assert [line.policy.count_from for line in found.seal] == ["source", ""]
    assert mistakes("""
peers:
  CT01: {sends_as: [CT01], seal: {count_from: source}}
  MR01: {sends_as: [MR01], seal: {count_from: CT01}}
  PACS: {ae_title: PACS, address: "10.1.2.9:104"}
seal:
  - {quiet_for: 60 s, count_from: PASC}
""") == [
        "f:13:23: count_from is source, no, or a peer; there is no peer PASC; did you mean PACS?",
        "f:9:35: CT01 needs ae_title and address to be asked for its counts (C-FIND)",
        "f:10:35: peer CT01 needs ae_title and address to be asked for counts (C-FIND)",
    ]


def test_how_earlier_studies_are_fetched() -> None:
    """`priors` says C-MOVE or C-GET, of a peer with an address; `keep.priors` how long they stay."""
    found = read("""
peers:
  PACS: {ae_title: PACS, address: "10.1.2.9:104", priors: get}
  OLD: {ae_title: OLD, address: "10.1.2.8:104"}
keep: {priors: 12 h}
""")
    assert (found.peers["PACS"].priors, found.peers["OLD"].priors) == ("get", "move")
    assert found.keep.priors == timedelta(hours=12) and Keep().priors == timedelta(days=1)
    assert mistakes("""
peers:
  PACS: {ae_title: PACS, address: "10.1.2.9:104", priors: fetch}
  CT01: {sends_as: [CT01], priors: get}
""") == [
        "f:9:51: fetch is not one of move, get",
        "f:10:28: priors needs an address: nothing is sent to a peer without one",
    ]
