"""Claims about the conformance statement: it says what the code does, for the site at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom.uid import JPEG2000, UID, ImplicitVRLittleEndian
from pynetdicom import _config

from node import settings as site
from node.cli import main
from node.derive import standard
from node.desk.conformance import DERIVED, services
from node.desk.statement import lines
from node.receive.listener import application_entity, configure
from node.receive.negotiation import Negotiator
from node.send.negotiation import Pair, request
from node.send.protocol import Destination
from node.settings import Settings

SITE = """
node:
  ae_titles: [PACSNODE, SECOND]
  listen: 127.0.0.1:11112
  timezone: UTC
  data: data
  rules: rules
  durability: process
peers:
  CT01: {sends_as: [CT01], durability: power}
  PACS: {ae_title: ORTHANC, address: "10.1.2.9:4242", sends_as: [ORTHANC], commit: yes}
  MR01: {sends_as: [MR01], commit_after: PACS, ae_title: MR01, address: "10.1.2.8:104"}
"""


def settings(text: str = SITE) -> Settings:
    """The site."""
    return site.parse(text, "node.yaml", {})


def peers_of(text: str) -> Mapping[tuple[str, str], str]:
    """(Service, role) → with whom."""
    return {(one.service, one.role): one.peers for one in services(settings(text))}


def test_services_are_those_of_the_site() -> None:
    """Who commits, may ask us to, and can be sent to follows from the peers; without a site it says what decides."""
    found = peers_of(SITE)
    assert found["Storage", "SCU"] == "PACS, MR01"
    assert found["Storage Commitment", "SCU"] == "PACS"
    assert found["Storage Commitment", "SCP"] == "MR01"
    assert found["Storage", "SCP"] == "every peer"
    without = (
        SITE.replace(", commit: yes", "").replace(", commit_after: PACS", "") + "unknown_senders: accept\n"
    )
    assert peers_of(without)["Storage Commitment", "SCU"] == "nobody: there are no peers with `commit`"
    assert peers_of(without)["Storage", "SCP"] == "everybody"
    (anywhere,) = (one for one in services(None) if (one.service, one.role) == ("Storage Commitment", "SCP"))
    assert anywhere.peers == "peers with `commit_after`"


def test_what_success_means_stands_in_it() -> None:
    """Where success does not outlive a power cut the statement says so, and for whom it is otherwise."""
    said = "\n".join(lines(settings()))
    assert (
        "not a power cut (`durability: process`). Otherwise for what comes from CT01 (`durability: power`)."
        in said
    )
    safe = "\n".join(lines(settings(SITE.replace("  durability: process\n", ""))))
    assert "it survives a power cut (`durability: power`)." in safe and "Otherwise" not in safe


def test_what_is_accepted_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any storage class in any first syntax, and C-ECHO; what others may only be asked for is not accepted."""
    for name in ("LOG_HANDLER_LEVEL", "UNRESTRICTED_STORAGE_SERVICE"):
        monkeypatch.setattr(_config, name, getattr(_config, name))  # as before, after this test
    monkeypatch.setitem(_config.VALIDATORS, "UI", _config.VALIDATORS["UI"])
    configure()
    proposed: dict[int, Pair] = {
        1: ("1.2.840.10008.1.1", str(ImplicitVRLittleEndian)),
        3: (standard.CT, str(JPEG2000)),
        5: ("1.3.46.670589.11.0.0.12.1", "1.2.3.4.5"),
        9: ("1.2.840.10008.5.1.4.1.2.2.1", str(ImplicitVRLittleEndian)),
        11: ("1.2.840.10008.3.1.2.3.3", str(ImplicitVRLittleEndian)),
    }
    asked = request(Destination("NODE", "127.0.0.1", 104, "PACSNODE", "CT01"), proposed)
    negotiator = Negotiator(application_entity("PACSNODE", ("1.2.3", "X")))
    assert sorted(negotiator.agree(asked[6:]).contexts) == [1, 3, 5]
    (step,) = (one.sop_class for one in services(None) if "Performed" in one.service)
    assert 11 in negotiator.agree(asked[6:], as_scu=step).contexts


def test_every_class_has_a_name_and_every_table_its_columns() -> None:
    """No UID is unknown to the standard's registry, and no row of a table is torn by a value in it."""
    for uid in [uid for uids in DERIVED.values() for uid in uids] + [
        s.sop_class for s in services(None) if s.sop_class
    ]:
        assert UID(uid).name != uid
    width = 0
    for line in lines(settings()):
        if line.startswith("|---"):
            width = line.count("|")
        elif line.startswith("|") and width:
            assert line.count("|") == width, line
        elif not line:
            width = 0


def test_the_verb_prints_it(tmp_path: Path) -> None:
    """`conformance` needs no site file; with one it names the site's titles, and `--json` is for scripts."""
    file = tmp_path / "node.yaml"
    file.write_text(SITE)
    run = CliRunner().invoke(main, ["--config", str(file), "conformance"])
    assert run.exit_code == 0 and "# DICOM Conformance Statement: PACSNode" in run.output
    assert (
        "called: PACSNODE, SECOND" in run.output
        and "| PACS | ORTHANC | any address | ORTHANC |" in run.output
    )
    run = CliRunner().invoke(main, ["--config", str(file), "conformance", "--json"])
    assert json.loads(run.output)["ae_titles"] == ["PACSNODE", "SECOND"]
