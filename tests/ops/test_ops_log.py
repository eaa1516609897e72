"""What may reach a log, and what may not."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from node.errors import Refused
from node.model import SeriesState
from node.ops import log

SECRET = "DOE^JOHN"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Undo the process-wide set-up after each test."""
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    handlers = logging.getLogger().handlers
    with warnings.catch_warnings():
        yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_role_event_and_time() -> None:
    """Off a terminal a line is one JSON object with role, event, level, time and our references."""
    stream = io.StringIO()
    log.configure("conductor", stream)
    structlog.get_logger().info("series_sealed", series=7, state=SeriesState.SEALED, seconds=1.5)
    (line,) = _lines(stream)
    assert line.pop("timestamp").endswith("Z")
    expected = {"event": "series_sealed", "level": "info", "role": "conductor", "series": 7}
    assert line == {**expected, "state": "sealed", "seconds": 1.5}


@pytest.mark.parametrize(
    "key", ["patient", "PatientName", "name", "text", "exception", "stack", "dataset", "uid"]
)
def test_unlisted_keys_vanish(key: str) -> None:
    """A key that is not on the list never reaches the log, whatever it holds."""
    stream = io.StringIO()
    log.configure("conductor", stream)
    structlog.get_logger().warning("something", **{key: SECRET}, series=1)
    assert SECRET not in stream.getvalue()
    assert _lines(stream)[0]["series"] == 1


def test_bound_context_is_guarded_too() -> None:
    """Values bound to a logger or to the context pass the same guard."""
    stream = io.StringIO()
    log.configure("worker", stream)
    with structlog.contextvars.bound_contextvars(patient=SECRET, run=3):
        structlog.get_logger().bind(birth_date=SECRET).info("run_started")
    assert SECRET not in stream.getvalue()
    assert _lines(stream)[0]["run"] == 3


def test_a_listed_key_holds_only_plain_values() -> None:
    """A mapping or a dataset under a listed key is dropped: its text would carry what it holds."""
    stream = io.StringIO()
    log.configure("worker", stream)
    structlog.get_logger().info("run_started", reason={"PatientName": SECRET}, count=[SECRET])
    assert SECRET not in stream.getvalue()


def test_an_event_name_built_from_data_is_replaced() -> None:
    """An event that is no constant name is logged as unnamed."""
    stream = io.StringIO()
    log.configure("worker", stream)
    structlog.get_logger().info(f"received {SECRET}")
    assert _lines(stream)[0]["event"] == "unnamed_event"
    assert SECRET not in stream.getvalue()


def test_a_value_cannot_forge_a_line() -> None:
    """Line breaks and escape sequences in a peer's text are replaced, on a terminal as well."""
    for stream in (io.StringIO(), _Terminal()):
        log.configure("receiver", stream)
        structlog.get_logger().warning("association_refused", calling='X\n{"event":"ok"}\x1b[2J')
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b[2J" not in stream.getvalue()
        assert "association_refused" in stream.getvalue()


def test_only_paths_inside_data_are_logged(tmp_path: Path) -> None:
    """A path below the data folder is logged; one outside it, which others named, is not."""
    stream = io.StringIO()
    log.configure("reader", stream, data=tmp_path)
    logger = structlog.get_logger()
    logger.info("object_unreadable", path=tmp_path / "objects" / "1" / "00000001.dcm")
    logger.info("import_failed", path=f"/media/{SECRET}/1.dcm")
    logger.info("import_failed", path=tmp_path / ".." / SECRET)
    inside, outside, around = _lines(stream)
    assert inside["path"].endswith("00000001.dcm")
    assert "path" not in outside
    assert "path" not in around


def test_an_exception_shows_type_and_place_only() -> None:
    """A foreign exception shows its type and frames; its text and its locals stay out."""
    stream = io.StringIO()
    log.configure("worker", stream)
    try:
        int(SECRET)
    except ValueError:
        structlog.get_logger().exception("run_failed", run=1)
    (line,) = _lines(stream)
    assert line["error"] == "ValueError"  # whose text quotes the value
    assert "test_ops_log.py" in line["frames"]
    assert SECRET not in stream.getvalue()


def test_our_own_message_is_shown() -> None:
    """An error of ours shows the sentence it was raised with."""
    stream = io.StringIO()
    log.configure("worker", stream)
    structlog.get_logger().warning("run_refused", error=Refused("the stack is tilted"))
    assert _lines(stream)[0]["error"] == "Refused: the stack is tilted"


def test_libraries_cannot_quote_headers() -> None:
    """Loggers of pydicom and pynetdicom say nothing, and any other library says only that it warned."""
    stream = io.StringIO()
    log.configure("reader", stream)
    logging.getLogger("pydicom").error("Invalid value %s", SECRET)
    logging.getLogger("pynetdicom.acse").critical(SECRET)
    assert stream.getvalue() == ""
    logging.getLogger("PIL.Image").warning(SECRET)
    (line,) = _lines(stream)
    assert (line["event"], line["library"]) == ("library_warned", "PIL")
    assert SECRET not in stream.getvalue()


def test_a_process_that_dies_leaves_no_patient_data() -> None:
    """Uncaught exceptions, in threads too, and warnings leave one guarded line each on stderr."""
    program = f"""
import threading, warnings, pydicom, pydicom.config
from node.ops import log
log.configure("receiver")
pydicom.config.logger.error("{SECRET}")
warnings.warn("{SECRET}")
def fail(): raise KeyError("{SECRET}")
thread = threading.Thread(target=fail); thread.start(); thread.join()
fail()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert SECRET not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line["error"]) for line in lines] == [("crashed", "KeyError")] * 2


def test_a_closed_log_stops_nothing() -> None:
    """Logging to a stream that is gone raises nothing."""
    stream = io.StringIO()
    log.configure("receiver", stream)
    stream.close()
    structlog.get_logger().info("still_here")
    assert stream.closed
