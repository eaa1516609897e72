"""What `deploy/` ships is valid by its own tools, and agrees with the program it starts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import peers
import pytest
from ruamel.yaml import YAML

from node import settings as site
from node.app import destinations, operator_specs
from node.route.check import check
from node.route.rules import read_folder

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict]:  # type: ignore[type-arg]
    """Every YAML document of a file."""
    return list(YAML(typ="safe").load_all(path.read_text()))


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Copy the unit with a program that exists here in place of the installed one."""
    text = (DEPLOY / "pacsnode.service").read_text()
    program = shutil.which("true")
    assert program
    made = tmp_path / "pacsnode.service"
    made.write_text(text.replace("/opt/pacsnode/bin/pacsnode", program))
    return made


def test_the_unit_is_one_that_systemd_understands(unit: Path) -> None:
    """`systemd-analyze verify` has nothing to say about it."""
    analyze = peers.need("systemd-analyze")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_passes_the_security_review(unit: Path) -> None:
    """Its exposure is at most 2.0 of 10; a service without any hardening has 9.6."""
    analyze = peers.need("systemd-analyze")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-400:]


def test_the_units_program_takes_its_arguments(unit: Path) -> None:
    """What ExecStart says after the program is a command line that pacsnode accepts."""
    line = re.search(r"^ExecStart=\S+ (.*)$", unit.read_text(), re.MULTILINE)
    assert line
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", *line[1].split(), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", [p for p in MANIFESTS if "apiVersion" in p.read_text()], ids=lambda p: p.name
)
def test_manifests_are_what_kubernetes_takes(path: Path) -> None:
    """Each manifest passes the published JSON schemas, with no unknown property."""
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        if document["kind"] != "Kustomization":
            validate.validate(document, "1.30", strict=True)


def test_the_site_file_that_the_unit_tells_to_install_fits_it(tmp_path: Path) -> None:
    """The sed of its comment makes a site that keeps its data where the unit lets it write."""
    text = (DEPLOY / "pacsnode.service").read_text()
    command = re.search(r"^# +(sed '.*') config/node.yaml > /etc/pacsnode/node.yaml$", text, re.MULTILINE)
    assert command
    done = subprocess.run(
        ["bash", "-c", f"{command[1]} '{ROOT}/config/node.yaml'"], check=True, capture_output=True, text=True
    )
    (tmp_path / "node.yaml").write_text(done.stdout)
    settings = site.load(tmp_path / "node.yaml", {})
    assert str(settings.node.data) == "/var/lib/pacsnode"
    assert settings.node.rules == tmp_path / "rules"
    assert re.search(r"^StateDirectory=pacsnode$", text, re.MULTILINE)


def test_the_kustomization_names_files_that_are_there() -> None:
    """Every resource and every file of a config map stands beside it, and nothing is left out."""
    (made,) = documents(DEPLOY / "kubernetes/kustomization.yaml")
    named = {*made["resources"], *(f for m in made["configMapGenerator"] for f in m["files"])}
    assert named == {path.name for path in MANIFESTS} - {"kustomization.yaml"}


def test_the_pod_is_confined_and_probed() -> None:
    """No root, no writable root file system, no capabilities, and probes on the pages that the node serves."""
    (made,) = documents(DEPLOY / "kubernetes/statefulset.yaml")
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"/healthz", "/readyz"}


@pytest.mark.parametrize("folder", ["compose", "kubernetes"])
def test_shipped_site_files_and_rules_pass(folder: str) -> None:
    """The site files of compose and Kubernetes are right, and so are the rules beside them."""
    settings = site.load(DEPLOY / folder / "node.yaml", {})
    assert settings.web is not None
    rules = ROOT / "rules" if folder == "compose" else DEPLOY / folder
    files = {
        name: text for name, text in read_folder(rules).items() if re.search("^rule:", text, re.MULTILINE)
    }
    report = check(files, operator_specs(), destinations(settings))
    assert report.errors == ()
    assert all(case.passed for case in report.cases)


def test_compose_agrees_with_what_it_mounts() -> None:
    """Ports, addresses and AE titles of the two services are those of their site files."""
    (made,) = documents(DEPLOY / "compose.yaml")
    node, pacs = made["services"]["node"], made["services"]["pacs"]
    orthanc = json.loads((DEPLOY / "compose/orthanc.json").read_text())
    settings = site.load(DEPLOY / "compose/node.yaml", {})
    peer = settings.peers["PACS"]
    assert (peer.host, peer.port, peer.ae_title) == (
        pacs["networks"]["dicom"]["ipv4_address"], orthanc["DicomPort"], orthanc["DicomAet"],
    )  # fmt: skip
    ours = [settings.node.ae_titles[0], node["networks"]["dicom"]["ipv4_address"], settings.node.listen[1]]
    assert orthanc["DicomModalities"]["PACSNODE"] == ours
    assert node["read_only"] is True
    for volume in (v for service in (node, pacs) for v in service["volumes"] if v.startswith(".")):
        assert (DEPLOY / volume.split(":")[0]).exists(), volume


def test_the_image_is_built_of_what_is_there() -> None:
    """Every file the Containerfile copies exists, it runs as nobody's root, and has one volume."""
    text = (DEPLOY / "Containerfile").read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    users = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert users == [("10104", "10104")]
    assert re.findall(r"^VOLUME (.*)$", text, re.MULTILINE) == ["/var/lib/pacsnode"]


def test_the_images_environment_makes_a_site(tmp_path: Path) -> None:
    """The site file in the image with the image's overrides is one that the node starts with."""
    text = (DEPLOY / "Containerfile").read_text()
    given = dict(re.findall(r"(PACSNODE__\w+)=(\S+)", text))
    settings = site.load(ROOT / "config/node.yaml", given)
    assert str(settings.node.data) == "/var/lib/pacsnode"
    assert str(settings.node.rules) == "/etc/pacsnode/rules"
    assert settings.web is not None
    assert settings.web.listen == ("0.0.0.0", 8080)
