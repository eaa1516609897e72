"""What is queued for whom without identity, and what happens to its key; with a clock of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flow_material import House, done, header, product, rule
from test_flow_withdrawal import IOCM

from node import flow
from node.deidentifying import read_key
from node.errors import Refused
from node.store import pseudonyms
from node.store.schema import delivery

NAMELESS = "send: [{what: received, to: [RESEARCH, PACS], deidentify: basic}]"


def house(folder: Path, *rules: str, text: str = IOCM) -> House:
    """A node with these rules."""
    return House(folder, "".join(rules), text=text)


def test_only_what_is_without_identity_is_queued_for_a_peer_that_takes_nothing_else(tmp_path: Path) -> None:
    """Received objects and results with `deidentify:` are queued there, each with its normalised profile."""
    results = "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: RESEARCH, deidentify: {profile: basic}}]"
    here = house(tmp_path, rule("r", NAMELESS), rule("d", results))
    here.complete(header(1))
    started = here.start()
    assert started is not None
    here.finish(started, done(product(1)))
    queued = here.rows(delivery)
    assert [row["destination"] for row in queued] == ["RESEARCH", "PACS", "RESEARCH"]
    profile = {"deidentify": {"clean": [], "profile": "basic", "retain": []}}
    assert all(json.loads(row["treatment"]) == profile for row in queued)
    assert not here.events("delivery_refused")
    assert not here.claim("RESEARCH"), "nothing goes before its copy is made"
    here.database.close()


def test_the_transcoder_is_told_where_the_key_is_and_what_the_site_says(tmp_path: Path) -> None:
    """The key is made once, for the node alone; it is never made anew where pseudonyms were given out."""
    here = house(tmp_path, rule("r", NAMELESS))
    here.take(header(1))
    with here.database.read() as tx:
        copying = flow.to_copy(tx, here.parts, 10)[0]
    key = Path(copying.request["deidentify"]["key"])
    assert key == here.parts.data / "deidentify.key" and key.stat().st_mode & 0o777 == 0o600
    assert copying.request["deidentify"]["site"]["prefix"] == "ANON-" and len(read_key(key)) == 32
    first = key.read_text()
    with here.database.write() as tx:
        flow.to_copy(tx, here.parts, 10)
        said = {"pseudonym": "ANON-X", "patient_id": "P", "issuer": "I", "study_uid": ""}
        for _ in range(2):
            pseudonyms.remember(tx, said, here.parts.now())
        assert key.read_text() == first
        assert [row["patient_id"] for row in pseudonyms.look_up(tx, "ANON-X", "")] == ["P"]
        assert pseudonyms.look_up(tx, "", "Q") == []
        key.unlink()
        flow.to_copy(tx, here.parts, 10)
    assert not key.exists()
    with pytest.raises(Refused, match="cannot be read"):
        read_key(key)
    here.database.close()


def test_what_waits_does_not_go_once_its_destination_takes_only_de_identified_data(tmp_path: Path) -> None:
    """Queued before the site file said so, an identified object is cancelled with the reason, not sent."""
    here = house(tmp_path, rule("r", "send: [{what: received, to: [PACS, ARCHIVE]}]"))
    here.take(header(1))
    peers = dict(here.parts.settings.peers)
    peers["PACS"] = replace(peers["PACS"], only="deidentified")
    here.parts.settings = replace(here.parts.settings, peers=peers)
    assert not here.claim("PACS") and len(here.claim("ARCHIVE")) == 1
    (pacs,) = [row for row in here.rows(delivery) if row["destination"] == "PACS"]
    assert pacs["state"] == "cancelled" and "takes only de-identified data" in pacs["reason"]
    here.database.close()
