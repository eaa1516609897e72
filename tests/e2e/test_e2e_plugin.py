"""A third party's operators: installed with pip from a folder, used by the rule that comes with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.crash_house import ROUTE_ALL, House, Pacs, Scanner, house

from node.testing import Grid, Series, body_volume, write_ct_series

PLUGIN = Path(__file__).parents[1] / "plugin" / "acme-emphysema"
GRID = Grid((24, 64, 64), (3.0, 6.0, 6.0))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package as its user would, into a folder of its own; the environment that sees it."""
    folder = tmp_path_factory.mktemp("site-packages")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
            "--no-index", "--disable-pip-version-check", "--target", str(folder), str(PLUGIN),
        ],
        check=True,
    )  # fmt: skip
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, installed: dict[str, str]
) -> Iterator[tuple[House, Pacs]]:
    """Run a node with the plugin and its rule, and a PACS."""
    rules = {"all": ROUTE_ALL, "emphysema": (PLUGIN / "emphysema.yaml").read_text()}
    with (
        house(tmp_path_factory.mktemp("plugin") / "site", rules, environ=installed) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        yield site, pacs
        site.stop()


def pacsnode(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as the node's user does."""
    return subprocess.run(
        [sys.executable, "-m", "node.cli", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environ},
    )  # fmt: skip


def test_its_operators_are_on_offer(installed: dict[str, str]) -> None:
    """`pacsnode operators` tells what they do, their options with units, and whose they are."""
    done = pacsnode(installed, "operators", "acme.emphysema_index")
    assert done.returncode == 0, done.stderr
    for words in ("Share of lung voxels darker than", "below", "-950", "acme-emphysema 1.4"):
        assert words in done.stdout
    without = pacsnode({}, "operators", "acme.emphysema_index")
    assert without.returncode == 2


def test_its_rule_passes_check(installed: dict[str, str], tmp_path: Path) -> None:
    """The rule that comes with it, its options and its cases are right; without the plugin it is refused."""
    (tmp_path / "emphysema.yaml").write_text((PLUGIN / "emphysema.yaml").read_text())
    done = pacsnode(installed, "check", "--rules", str(tmp_path), "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ok"] is True
    without = pacsnode({}, "check", "--rules", str(tmp_path))
    assert without.returncode == 2
    assert "there is no operator acme.lungs" in without.stdout


def test_its_results_reach_the_pacs(running: tuple[House, Pacs], tmp_path: Path) -> None:
    """A chest CT comes in; the lungs as SEG and the index as SR arrive, with the plugin as the algorithm."""
    site, pacs = running
    volume = body_volume(GRID, noise=0)
    lung = volume.array < -800
    lung[:, 0] = False
    volume.array[lung & (volume.array > -900)] = -980  # all lung tissue, not the air around the patient
    files = write_ct_series(tmp_path, volume, series=Series("plugin", changes={"SliceThickness": "3"}))
    Scanner(site.port).send(files)
    site.wait_idle()
    (run,) = site.table("run", rule="acme-emphysema")
    assert (run["state"], run["reason"]) == ("done", "")
    made = [pacs.read(uid) for uid, _ in pacs.got if uid not in {path.stem for path in files}]
    (seg,) = [ds for ds in made if ds.Modality == "SEG"]
    assert seg.SegmentSequence[0].SegmentLabel == "Lungs"
    identified = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (identified.AlgorithmName, identified.AlgorithmVersion) == ("acme.lungs", "1.4")
    (report,) = [ds for ds in made if ds.Modality == "SR"]
    text = report.to_json()
    assert "Low attenuation area of lung" in text
    (number,) = [m for m in _measurements(site) if m["name"].startswith("LAA")]
    assert 80 < number["value"] <= 100


def _measurements(site: House) -> list[dict[str, float]]:
    from sqlalchemy import select

    from node.store.database import rows
    from node.store.schema import measurement

    database = site.database()
    with database.read() as tx:
        found = rows(tx, select(measurement))
    database.close()
    return [dict(row) for row in found]
