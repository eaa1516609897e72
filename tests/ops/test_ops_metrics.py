"""Metrics: what Prometheus reads is what the page and the tables hold, with few labels and no patient data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from node.ops.health import Board, Role
from node.ops.metrics import METRICS, MOST, Received, Sample, text
from node.receive.reasons import Kind, Reason
from node.store.watch import Queues, Totals

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
BARE = Sample(
    now=NOW, version="1.2.3", peers=("CT01", "PACS"), destinations=("PACS",), limit=64, connections=320, disk=0.25,
    shares={"warn": 0.8},
)  # fmt: skip
FULL = Sample(
    now=NOW, version="1.2.3", peers=("CT01", "PACS"), destinations=("PACS",), limit=64, connections=320, disk=0.25,
    shares={"warn": 0.8},
    board=Board(0.0, 1, 2, (Role("conductor", 7), Role("web", None, 3))),
    beaten=NOW.timestamp() - 2.5,
    received=Received(
        3, 2, 5, 10, {kind.event: {r.label: 4 for r in Reason if r.kind is kind} for kind in Kind},
        {"CT01": (5, 500, 1), "": (2, 20, 0)},
    ),
    queues=Queues(
        {"receiving": 2}, {("lung", "waiting"): 4},
        {("PACS", "waiting"): (6, NOW - timedelta(seconds=90)), ("GONE", "sending"): (1, NOW)},
        {"fusion": 2},
    ),
    totals=Totals(
        {("CT01", "kept"): (8, 800), ("STRANGER1", "kept"): (1, 10), ("STRANGER2", "kept"): (1, 10)},
        {"routed": 3}, {("lung", "done"): 2},
        {("PACS", "stored", 0): 5, ("PACS", "parked", 0xA900): 1, ("PACS", "waiting", None): 6},
        {"series_sealed": 3},
    ),
    down=("PACS",), waiting={"PACS": 12345, "GONE": 1}, certificates={"tls": NOW.timestamp() + 86400},
)  # fmt: skip


def read(sample: Sample) -> dict[str, float]:
    """What Prometheus' own parser finds, by name and labels."""
    return {
        s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text(sample).decode())
        for s in family.samples
    }


def test_every_number_arrives() -> None:
    """Each part of a sample is read back by Prometheus' parser under its documented name."""
    found = read(FULL)
    assert found["pacsnode_build_info version=1.2.3"] == 1
    assert found["pacsnode_received_objects_total peer=CT01"] == 5
    assert found["pacsnode_received_bytes_total peer=other"] == 20
    assert found["pacsnode_refused_objects_total peer=CT01"] == 1
    assert (found["pacsnode_associations_open"], found["pacsnode_connections_open"]) == (3, 5)
    assert found["pacsnode_associations_rejected_total reason=called_title"] == 4
    assert found["pacsnode_associations_lost_total reason=aborted"] == 4
    assert sum(1 for name in found if " reason=" in name) == len(Reason)
    assert found["pacsnode_process_up process=conductor"] == 1
    assert found["pacsnode_process_up process=web"] == 0
    assert found["pacsnode_process_deaths process=web"] == 3
    assert found["pacsnode_conductor_beat_age_seconds"] == 2.5
    assert found["pacsnode_destination_up destination=PACS"] == 0
    assert found["pacsnode_destination_waiting_bytes destination=PACS"] == 12345
    assert found["pacsnode_deliveries_queued destination=PACS state=waiting"] == 6
    assert found["pacsnode_delivery_oldest_age_seconds destination=PACS"] == 90
    assert found["pacsnode_deliveries destination=PACS state=parked status=A900"] == 1
    assert found["pacsnode_deliveries destination=PACS state=waiting status=none"] == 6
    assert found["pacsnode_instance_bytes peer=CT01 state=kept"] == 800
    assert found["pacsnode_runs_queued rule=lung state=waiting"] == 4
    assert found["pacsnode_studies_waiting rule=fusion"] == 2
    assert found["pacsnode_events name=series_sealed"] == 3


def test_every_documented_metric_is_shown() -> None:
    """A full sample has every metric of the table, and none that the table lacks."""
    names = {line.split()[2] for line in text(FULL).decode().splitlines() if line.startswith("# TYPE")}
    assert names == {described.name for described in METRICS}


def test_strangers_are_one_label() -> None:
    """Peers and destinations that the site file does not name are added up under `other`."""
    found = read(FULL)
    assert found["pacsnode_instances peer=other state=kept"] == 2
    assert found["pacsnode_deliveries_queued destination=other state=sending"] == 1
    assert not [name for name in found if "STRANGER" in name or "GONE" in name]


def test_labels_are_bounded() -> None:
    """A thousand rules give no more labels than promised, and lose no run."""
    runs = {(f"rule-{n:04d}", "done"): 1 for n in range(1000)}
    found = read(Sample(**{**vars(FULL), "totals": Totals({}, {}, runs, {}, {})}))
    of_runs = {name: value for name, value in found.items() if name.startswith("pacsnode_runs ")}
    assert len(of_runs) == MOST + 1
    assert sum(of_runs.values()) == 1000


def test_what_cannot_be_had_is_left_out() -> None:
    """Without board, page and database the page still says that the database is down."""
    found = read(BARE)
    assert found["pacsnode_database_up"] == 0
    assert found["pacsnode_disk_used_ratio"] == 0.25
    assert "pacsnode_rules_refused" not in found
    assert not [name for name in found if "received" in name or "series" in name]


def test_a_name_cannot_break_the_page() -> None:
    """Quotes, backslashes and line ends in a name are escaped, not lines of their own."""
    odd = 'a"b\\c\nd 1'
    totals = Totals({}, {}, {(odd, "done"): 2}, {}, {})
    found = read(Sample(**{**vars(BARE), "totals": totals}))
    assert found[f"pacsnode_runs rule={odd} state=done"] == 2
