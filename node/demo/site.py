"""The demo's node: a site file of its own, the shipped rules, and a real `pacsnode run`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.demo import pacs, studies
from node.errors import Broken, Misconfigured

AE_TITLE = "PACSNODE"
START_WITHIN, STOP_WITHIN = 30.0, 45.0
"""Seconds; stopping is the supervisor's own limit for its roles, and a little more."""

_HERE = Path(__file__).parent
_RULE_FOLDERS = (_HERE.parent / "shipped" / "rules", _HERE.parents[1] / "rules")  # a wheel, a checkout
_OWN_RULE = _HERE / "ct-slice-report.yaml"


@dataclass(frozen=True, slots=True)
class Work:
    """The demo's folder and what lies where in it."""

    folder: Path

    @property
    def site_file(self) -> Path:
        """The node's site file: `pacsnode --config` it to look around afterwards."""
        return self.folder / "node.yaml"

    @property
    def log(self) -> Path:
        """Everything the node said."""
        return self.folder / "node.log"

    @property
    def data(self) -> Path:
        """What the node keeps."""
        return self.folder / "data"

    @property
    def sent(self) -> Path:
        """The images that are sent to the node."""
        return self.folder / "sent"

    @property
    def pacs(self) -> Path:
        """What the PACS got."""
        return self.folder / "pacs"

    @property
    def pictures(self) -> Path:
        """Previews."""
        return self.folder / "pictures"


@dataclass(frozen=True)
class Node:
    """The running node."""

    process: subprocess.Popen[bytes]
    port: int
    work: Work

    def check(self) -> None:
        """Raise Broken where the node has ended."""
        code = self.process.poll()
        if code is not None:
            raise Broken(
                f"the node ended with exit code {code}:\n{_tail(self.work.log)}\nits log: {self.work.log}"
            )


def write(work: Work, pacs_port: int) -> int:
    """Write the site file and the rules below *work*; return the port the node will listen to."""
    port = free_port()
    scanners = "\n".join(
        f"  {name}: {{sends_as: [{name}], from_address: [127.0.0.1], seal: {{on_release: yes, quiet_for: 2 s}}}}"
        for name in studies.SCANNERS
    )
    work.site_file.write_text(
        f"""# Written by `pacsnode demo`.
node:
  ae_titles: [{AE_TITLE}]
  listen: 127.0.0.1:{port}
  timezone: UTC
  data: ./data
  rules: ./rules
peers:
{scanners}
  PACS: {{ae_title: {pacs.AE_TITLE}, address: 127.0.0.1:{pacs_port}, from_address: [127.0.0.1]}}
seal:
  - {{quiet_for: 2 s}}     # short, so that the demo is; one image alone waits for this
limits: {{workers: 2}}
""",
        encoding="utf-8",
    )
    shutil.copytree(_shipped_rules(), work.folder / "rules")
    shutil.copyfile(_OWN_RULE, work.folder / "rules" / _OWN_RULE.name)
    return port


def _shipped_rules() -> Path:
    for folder in _RULE_FOLDERS:
        if folder.is_dir():
            return folder
    raise Misconfigured(f"the shipped rules are not at {_RULE_FOLDERS[0]}; install PACSNode again")


@contextmanager
def running(work: Work, port: int) -> Iterator[Node]:
    """`pacsnode run` as long as the block lasts, its output in the log; SIGTERM at the end. Raises Broken."""
    # By import, not by name: the entry point may not be on PATH, and a folder called `node` may be in ours.
    command = [
        sys.executable, "-c", "from node.cli import main; main()", "--config", str(work.site_file), "run",
    ]  # fmt: skip
    with work.log.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=work.folder, env=_clean(os.environ), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    node = Node(process, port, work)
    try:
        yield node
    finally:
        _stop(process)


def wait_until_up(node: Node) -> None:
    """Return when the node accepts connections. Raises Broken where it does not in time."""
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        node.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", node.port), timeout=1):
            return
        time.sleep(0.05)
    raise Broken(f"the node did not listen within {START_WITHIN:g} s; its log: {node.work.log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, which lets the node finish; SIGKILL for one that does not. Its roles end with it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would change the demo's settings."""
    return {key: value for key, value in environ.items() if not key.startswith("PACSNODE")}


def free_port() -> int:
    """Return a TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 8) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
