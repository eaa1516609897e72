"""Logging: constant event names with our own references, and no way for patient data to get in.

What peers and files say never reaches a log: a guard lets only listed keys through, texts of exceptions that
are not ours are replaced by their type, and the libraries that quote header values are silenced.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, MutableMapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog

from node.errors import NodeError

Entry = MutableMapping[str, Any]

ALLOWED = frozenset(
    """
    event level timestamp role pid version library error frames
    series study instance object run runs delivery deliveries product rule operator step output measurement
    destination peer association calling called address port sop_class transfer_syntax
    state reason status attempt count objects products files bytes seconds due_in path
    durability receivers receiver worker workers process exit_code signal free used
    alert channel
    """.split()  # noqa: SIM905 - a list of words is easier to read and extend
)
"""The keys that may be logged. `series`, `study`, `instance`, `object` are our row numbers, never UIDs."""

_EVENT = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 500
_SILENCED = ("pynetdicom", "pydicom", "highdicom", "sqlalchemy")  # they quote values of headers and rows


def configure(role: str, stream: TextIO | None = None, data: Path | None = None) -> None:
    """Set up logging for a process of the node: JSON lines, or a console where *stream* is a terminal.

    *role* stands in every line; *stream* is stderr unless given. Paths are logged only below *data*.
    """
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    writer = _Writer(out)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_exception,
            Guard(role, data),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    _silence()
    _hook()


class Guard:
    """The last processor before the renderer: drops keys that are not listed and defuses what remains."""

    def __init__(self, role: str, data: Path | None = None) -> None:
        self._role = role
        self._data = data.absolute() if data else None

    def __call__(self, _logger: object, _method: str, entry: Entry) -> Mapping[str, Any]:
        """Return a new entry with the listed keys only, and *role*."""
        kept = {key: self._value(key, value) for key, value in entry.items() if key in ALLOWED}
        if not isinstance(entry.get("event"), str) or not _EVENT.fullmatch(entry["event"]):
            kept["event"] = "unnamed_event"  # a name built from data may carry data
        return {**{key: value for key, value in kept.items() if value is not None}, "role": self._role}

    def _value(self, key: str, value: object) -> str | int | float | None:
        """Return a number, or a short text without control characters; None for anything else."""
        if key == "path":
            return self._path(value)
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return _CONTROL.sub("?", value)[:_LONGEST]
        return None

    def _path(self, value: object) -> str | None:
        """Return a path below our data folder, whose names are all ours; None for any other."""
        if self._data is None or not isinstance(value, str | Path):
            return None
        path = Path(value)
        if ".." in path.parts or not path.is_relative_to(self._data):
            return None
        return _CONTROL.sub("?", str(path))


def describe(error: BaseException) -> str:
    """Return an exception's type, with its text only where the text is ours."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, NodeError) else name


def _describe_exception(_logger: object, _method: str, entry: Entry) -> Entry:
    """Turn `exc_info` into *error* and *frames*: where it happened, without source lines or locals."""
    info = entry.pop("exc_info", None)
    if isinstance(info, tuple):
        error = info[1]
    else:
        error = info if isinstance(info, BaseException) else sys.exception() if info else None
    if error is not None:
        entry["error"] = describe(error)
        frames = traceback.extract_tb(error.__traceback__)
        entry["frames"] = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    elif isinstance(entry.get("error"), BaseException):
        entry["error"] = describe(entry["error"])
    return entry


class _Writer:
    """Writes whole lines; a log that cannot be written never stops the node."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = fatal = exception = log = msg


class _Elsewhere(logging.Handler):
    """Says that a library warned, not what: its text may quote what a peer sent."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("library_warned", library=record.name.partition(".")[0])


def _silence() -> None:
    warnings.simplefilter("ignore")  # pydicom's warnings quote values
    root = logging.getLogger()
    root.handlers = [_Elsewhere(logging.WARNING)]
    for name in _SILENCED:
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]  # without one, logging's last resort prints to stderr
        logger.propagate = False
        logger.setLevel(logging.CRITICAL)


def _hook() -> None:
    """Log what nobody caught, instead of Python's traceback with the exception's text."""

    def crashed(_kind: object, error: BaseException | None, _trace: TracebackType | None = None) -> None:
        structlog.get_logger().critical("crashed", exc_info=error)

    sys.excepthook = crashed
    threading.excepthook = lambda args: crashed(args.exc_type, args.exc_value)
    sys.unraisablehook = lambda args: crashed(args.exc_type, args.exc_value)
