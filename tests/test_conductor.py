"""Claims about the conductor as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from crash.crash_house import MEASURE_CT, ROUTE_ALL
from peers import wait_for
from pydicom import dcmread

from node import settings as site
from node.conductor import Conductor
from node.reader import Reader, header_from_json
from node.readings import Reading, Readings
from node.testing import Grid, Series, body_volume, head_volume, write_ct_series, write_mr_series

SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: UTC, data: data, rules: rules}
"""


def start(folder: Path, wake_fd: int, *options: str) -> subprocess.Popen[bytes]:
    """A conductor over an empty data folder."""
    (folder / "data").mkdir()
    (folder / "rules").mkdir()
    given = ["--wake-fd", str(wake_fd), "--file", str(folder / "node.yaml"), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "node.conductor", *given],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(wake_fd,),
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(SITE.encode())
    process.stdin.close()
    return process


def test_a_conductor_ends_when_nobody_can_wake_it_any_more(tmp_path: Path) -> None:
    """The wake pipe's end says that the supervisor is gone, even where it died before we could ask to die with it."""
    read, write = os.pipe()
    process = start(tmp_path, read)
    os.close(read)
    assert process.stderr is not None
    for line in process.stderr:
        if b"conductor_started" in line:
            break
    os.close(write)
    assert process.wait(60) == 0


def test_a_conductor_whose_parent_died_first_does_not_begin(tmp_path: Path) -> None:
    """Told whose child it is, it ends when that is not its parent any more."""
    read, write = os.pipe()
    process = start(tmp_path, read, "--parent", "999999")
    os.close(read)
    assert process.wait(60) != 0 or not (tmp_path / "data" / "pacsnode.db").exists()
    os.close(write)


def test_a_full_wake_pipe_is_not_its_end(tmp_path: Path) -> None:
    """Exactly as many bytes as are read at once mean many objects, not a dead supervisor."""
    (tmp_path / "data").mkdir()
    (tmp_path / "rules").mkdir()
    from node import app

    settings = site.parse(SITE, str(tmp_path / "node.yaml"), {})
    conductor = Conductor(app.build(settings), None)
    read, write = os.pipe()
    try:
        for end in (read, write):
            os.set_blocking(end, False)
        os.write(write, b"x" * 4096)
        conductor._heard("wake", read)
        assert not conductor.stopping
        os.close(write)

        def heard() -> bool:  # a spare worker that is being started holds a copy of the pipe until its exec
            conductor._heard("wake", read)
            return conductor.stopping

        wait_for(heard, "hearing the end of the pipe")
    finally:
        os.close(read)
        conductor.engine.stop()
        conductor.parts.database.close()


def test_a_worker_waits_only_where_a_rule_makes_something(tmp_path: Path) -> None:
    """A node that only routes keeps no warm worker; one with a rule that has `do:` keeps one from the start."""
    from node import app

    for name, text in (("routes", ROUTE_ALL), ("makes", MEASURE_CT)):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        (folder / "rules").mkdir()
        (folder / "rules" / "all.yaml").write_text(text)
        peer = 'peers: {PACS: {ae_title: PACS, address: "127.0.0.1:1"}}\n'
        conductor = Conductor(app.build(site.parse(SITE + peer, str(folder / "node.yaml"), {})), None)
        spares = conductor.engine._spares
        try:
            spares._starter.submit(int).result()  # after what was to be started
            assert len(spares._ready) == (1 if name == "makes" else 0)
        finally:
            conductor.engine.stop()
            conductor.parts.database.close()


def test_the_reader_answers_whatever_it_is_asked(tmp_path: Path) -> None:
    """A file that is gone, or is none of ours, is an answer with a reason and never an exception."""
    assert "failed" in Reader().answer('{"paths": ["%s"]}' % (tmp_path / "gone.dcm"))
    (tmp_path / "x.dcm").write_bytes(b"not DICOM")
    assert "failed" in Reader().answer('{"paths": ["%s"]}' % (tmp_path / "x.dcm"))


def test_the_reader_tells_only_what_differs(tmp_path: Path) -> None:
    """The second of two slices is told by its differences, and is read back as if it had been told in full."""
    first, second = write_mr_series(tmp_path, head_volume(Grid((2, 16, 16))), series=Series("mr"))
    _taken_from(second, ["EchoTime"])
    reader = Reader()
    told = [reader.answer(json.dumps({"paths": [str(path)]}))["header"] for path in (first, second, first)]
    alone = Reader().answer(json.dumps({"paths": [str(second)]}))["header"]
    assert len(told[1]["attributes"]) < len(alone["attributes"]) / 3
    assert told[1]["gone"] == ["EchoTime"]
    before = header_from_json(told[0]).attributes
    found = header_from_json(told[1], before)
    assert found == header_from_json(alone)
    assert header_from_json(told[2], found.attributes).attributes == before


def _taken_from(path: Path, keywords: list[str]) -> None:
    dataset = dcmread(path)
    for keyword in keywords:
        delattr(dataset, keyword)
    dataset.save_as(path)


def test_objects_wait_a_moment_for_others_to_go_with() -> None:
    """A lone object is taken at once; while more come, a transaction takes 128 or what came in 40 ms."""
    readings = Readings()
    for number in range(140):
        readings.add(Reading(None, [Path(f"{number}.dcm")]))
    assert not readings.busy
    readings.queue[0].ready = True
    assert readings.busy
    assert readings.worth_taking(1.0)
    readings.taken_at = 1.0
    assert [readings.worth_taking(at) for at in (1.0, 1.039, 1.041)] == [False, False, True]
    for reading in list(readings.queue)[:128]:
        reading.ready = True
    assert readings.worth_taking(1.001)


def test_two_readers_keep_the_order_and_one_that_dies_loses_nothing(tmp_path: Path) -> None:
    """Each answer reaches the record it was asked for, whoever read it; what a dead reader was asked is asked again."""
    paths = write_ct_series(tmp_path, body_volume(Grid(shape=(12, 16, 16), spacing=(5, 12, 12))))
    readings = Readings(2)
    try:
        for path in paths:
            readings.add(Reading(None, [path]))
        readings.ask(0.0)
        assert [len(reader.asked) for reader in readings.readers] == [6, 6]
        os.kill(readings.children[1].process.pid, signal.SIGKILL)  # type: ignore[union-attr]

        def turn() -> bool:
            readings.ask(time.monotonic())
            readings.listen(time.monotonic())
            return all(reading.ready for reading in readings.queue)

        wait_for(turn, "reading")
        found = [reading.header.sop_uid for reading in readings.done(99) if reading.header]
        assert found == [dcmread(path).SOPInstanceUID for path in paths]
    finally:
        for child in readings.children:
            child.kill()


def test_readers_that_get_nothing_of_the_processor_are_helped(tmp_path: Path) -> None:
    """While the readers stand still another one reads everything in order, and their late answers change nothing."""
    paths = write_ct_series(tmp_path, body_volume(Grid(shape=(12, 16, 16), spacing=(5, 12, 12))))
    readings = Readings(2)
    *readers, helper = readings.children
    try:
        for path in paths:
            readings.add(Reading(None, [path]))
        readings.ask(time.monotonic())
        assert helper.process is None
        for child in readers:
            os.kill(child.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]

        def turn() -> bool:
            readings.ask(time.monotonic())
            readings.listen(time.monotonic())
            return all(reading.ready for reading in readings.queue)

        wait_for(turn, "the helper")
        read = list(readings.queue)
        found = [reading.header for reading in read]
        assert [header.sop_uid for header in found if header] == [
            dcmread(path).SOPInstanceUID for path in paths
        ]
        for child in readers:
            os.kill(child.process.pid, signal.SIGCONT)  # type: ignore[union-attr]
        list(readings.done(99))
        readings.add(Reading(None, paths[:1]))
        wait_for(turn, "the readers, after they have said what nobody waits for")

        def nothing_asked() -> bool:
            return turn() and not any(reader.asked for reader in readings.readers)

        wait_for(nothing_asked, "the old answers")
        assert [reading.header for reading in read] == found
    finally:
        for child in readings.children:
            child.kill()
