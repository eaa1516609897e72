"""For the command line's tests: a site folder with rules, phantoms, and data in which something has happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flow_material import House, done, product

from node import app
from node.cli import main
from node.model import Exit, OperatorSpec, RunState
from node.send.protocol import Kind
from node.testing import Grid, Series, body_volume, head_volume, write_ct_series, write_mr_series

SITE = """
node: {{ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: Europe/Berlin, data: data, rules: rules}}
peers:
  CT01: {{sends_as: [CT01]}}
  PACS: {{ae_title: PACS, address: "127.0.0.1:{port}"}}
  ARCHIVE: {{ae_title: ARCHIVE, address: "127.0.0.1:1"}}
"""
RULES = """rule: thick
purpose: Thick slices.
owner: o@h.example
when: {Modality: CT, slices: {at_least: 5}}
do: [{reformat: {plane: axial, thickness: 10 mm, every: 10 mm, combine: mean}, as: thick}]
send: [{what: thick, to: PACS}]
try: [{given: {Modality: CT, slices: 5}, expect: {runs: yes}}]
---
rule: route
purpose: CT goes on.
owner: o@h.example
when: {Modality: CT}
send: [{what: received, to: PACS}]
try: [{given: {Modality: CT}, expect: {runs: yes}}]
"""
CT = body_volume(Grid(shape=(8, 24, 24), spacing=(5, 12, 12)))
MR = head_volume(Grid(shape=(3, 24, 24), spacing=(10, 9, 9)))


@dataclass(frozen=True)
class Place:
    """A site folder."""

    folder: Path

    @property
    def site(self) -> Path:
        """Its site file."""
        return self.folder / "node.yaml"

    def run(self, *arguments: str | Path, **environ: str) -> Result:
        """`pacsnode --config SITE …`, in a terminal of 100 columns."""
        return pacsnode("--config", self.site, *arguments, **{"COLUMNS": "100", **environ})

    def json(self, *arguments: str | Path) -> Any:
        """What `--json` of a verb says."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


_ask_worker = app.operators


@cache
def told() -> tuple[dict[str, OperatorSpec], list[str]]:
    """What a worker says of the installed operators; asked once for all folders: each answer takes a process."""
    return _ask_worker()


def installed(data: Path | None = None) -> tuple[dict[str, OperatorSpec], list[str]]:
    """The same, in place of `app.operators`."""
    return told()


def pacsnode(*arguments: str | Path, **environ: str) -> Result:
    """The command line in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "operators", installed)
        return CliRunner().invoke(main, [str(a) for a in arguments], env=environ, catch_exceptions=False)


def place(folder: Path, rules: str = RULES, port: int = 4242) -> Place:
    """A site with these rules."""
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "all.yaml").write_text(rules)
    (folder / "node.yaml").write_text(SITE.format(port=port))
    return Place(folder)


def lived_in(folder: Path) -> Place:
    """A site where a CT was received, routed and processed, an MR was not wanted, and one object is parked."""
    made = place(folder)
    house = House(folder, RULES, specs=installed()[0], text=made.site.read_text())
    house.receive(
        write_ct_series(folder / "images" / "ct", CT, series=Series("ct", number=3, description="Thorax 5mm"))
    )
    house.receive(write_mr_series(folder / "images" / "mr", MR, series=Series("mr", study="ct", number=4)))
    for series_id in list(house.parts.assembly.series):
        house.seal(series_id, "quiet for 60 s")
    house.route()
    items = house.claim()
    house.answer(items[:-1])
    house.answer(items[-1:], Kind.FAILED, 0x0122)
    finished(house, done(product(1, "thick")))
    app.belongs(house.database, house.parts.data)
    house.database.close()
    return made


def finished(house: House, ended: Exit) -> None:
    """The next run ended like this."""
    started = house.start()
    assert started is not None
    assert ended.state is not RunState.RUNNING
    house.finish(started, ended)


def lines(text: str, *words: str) -> Sequence[str]:
    """The lines that hold all these words."""
    return [line for line in text.splitlines() if all(word in line for word in words)]
