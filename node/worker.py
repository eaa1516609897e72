"""The main of a worker process: one run, then it exits.

`python -m node.worker` waits, warm, for the path of a run's folder on its standard input, works on
`job.json` there and says in `products.json` how it ended. `python -m node.worker --specs` prints which
operators are installed: plugin code is never loaded in the conductor.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from node import faults
from node.collecting import collect_less, give_back
from node.combining import combined
from node.derive import standard
from node.derive.write import write, write_notes
from node.descent import sources_of
from node.errors import Broken, Misconfigured, Refused, Retryable
from node.measured import lacking, measured
from node.model import RECEIVED, WHOLE, Exit, Job, Product, RunState, SeriesPart
from node.process import registry, steps
from node.process.job import (
    ERROR_FILE,
    EXIT_FILE,
    JOB_FILE,
    LOG_FILE,
    PROGRESS_FILE,
    exit_to_json,
    job_from_json,
    spec_to_json,
)
from node.read.loaded import Part
from node.read.series import parts
from node.words import counted, unit_words

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ITK_OUT_OF_MEMORY = "Failed to allocate memory"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the operators, or wait for one run and do it."""
    asked = _arguments(arguments)
    if asked.specs:
        print(json.dumps(specs_as_json(), indent=1))
        return 0
    confine(asked.memory, asked.nice, asked.parent)
    specs_as_json()  # import what operators need while there is nothing to do yet
    if not select.select([sys.stdin], [], [], 0)[
        0
    ]:  # a spare: its run comes later, and finds the tables read
        standard.prepare()
    collect_less()
    line = sys.stdin.readline().rstrip("\n")
    return run_in(Path(line), asked.memory) if line else 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m node.worker", description="One run of the node.")
    parser.add_argument("--specs", action="store_true", help="print the installed operators as JSON")
    parser.add_argument("--memory", type=int, default=0, help="bytes this process may use; 0 is no limit")
    parser.add_argument("--nice", type=int, default=0, help="added to the scheduling priority")
    parser.add_argument("--parent", type=int, default=0, help="process to die with; 0 is none")
    return parser.parse_args(arguments)


def specs_as_json() -> dict[str, Any]:
    """`{"operators": {name: spec}, "mistakes": [sentence]}`."""
    with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints at import must not spoil the JSON
        found = registry.discover()
    return {
        "operators": {name: spec_to_json(spec) for name, spec in found.specs.items()},
        "mistakes": list(found.mistakes),
    }


def confine(memory: int, nice: int, parent: int) -> None:
    """Limit this process: memory, priority, first to die when the machine runs out, dead with its parent."""
    if parent:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            raise SystemExit(0)
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.nice(nice)
    with contextlib.suppress(OSError):  # not every container shows this file
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def run_in(folder: Path, memory: int = 0) -> int:
    """Do the job in *folder* and write how it ended; 0 when that is on disk, else EX_TEMPFAIL."""
    _log_to(folder / LOG_FILE)
    faults.reach("before-job")
    ended = _ended(folder, memory)
    faults.reach("before-products")
    try:
        _save(ended, folder)
    except OSError:
        traceback.print_exc()
        return os.EX_TEMPFAIL
    faults.reach("after-products")
    return 0


def _ended(folder: Path, memory: int) -> Exit:
    """How the job ended; every failure becomes a state and a sentence."""
    try:
        return work(folder)
    except Exception as error:  # noqa: BLE001 (the last line of defence; it is said and kept)
        state, reason = _verdict(error, _doing(folder))
        if isinstance(error, MemoryError) or _ITK_OUT_OF_MEMORY in reason:
            reason = _out_of_memory(_doing(folder), memory)
        if state is not RunState.REFUSED:
            _note(folder)
        return Exit(state, unit_words(reason))


def _verdict(error: Exception, doing: str) -> tuple[RunState, str]:
    if isinstance(error, Refused):
        return RunState.REFUSED, str(error)
    if isinstance(error, Retryable | OSError):
        return RunState.WAITING, f"{doing}: {error}"
    if isinstance(error, Broken | Misconfigured):  # these name the step themselves
        return RunState.QUARANTINED, str(error)
    return RunState.QUARANTINED, f"{doing}: {type(error).__name__}: {error}"


def work(folder: Path) -> Exit:
    """Read, run the steps, derive, gate: part after part. Raises what the rooms raise."""
    job = job_from_json(json.loads((folder / JOB_FILE).read_text(encoding="utf-8")))

    def begin(words: str) -> None:
        (folder / PROGRESS_FILE).write_text(words + "\n", encoding="utf-8")

    if job.withdraws:
        begin("writing the rejection note")
        return _synced(folder, write_notes(job, folder), f"{counted(len(job.withdraws), 'result')} withdrawn")
    begin("reading the images")
    if job.inputs:
        return _over_a_study(job, folder, begin)
    products: list[Product] = []
    numbers: list[Mapping[str, Any]] = []
    refused: list[str] = []
    missing: list[str] = []
    for part, unread in _parts(job):
        try:
            made, measurements, without = _one_part(job, part, unread, (folder, begin), products)
        except Refused as error:  # the other parts are not hostage to this one
            refused.append(f"{part.label}: {error}" if part.label else str(error))
            continue
        products.extend(made)
        numbers.extend(measurements)
        missing += [f"{part.label}: {text}" if part.label else text for text in without]
        begin("reading the images")
    if refused and not products:
        raise Refused("; ".join(dict.fromkeys(refused)))
    return _synced(folder, products, _reason(missing, refused), numbers)


def _over_a_study(job: Job, folder: Path, begin: Callable[[str], None]) -> Exit:
    """Several series at once: each input read, the steps, and every result with what it descends from."""
    inputs = combined(job, registry.discover().specs)
    give_back()
    results = steps.run(job.plan, inputs.give, registry.load, begin)
    begin("writing the results")
    descent = inputs.sources(results)
    main = sources_of(inputs.loaded[inputs.main])
    made = write(results, job, main, folder, descent=descent)
    return _synced(folder, made, _reason([*inputs.remarks, *lacking(results)]), measured(results))


def _synced(
    folder: Path,
    products: Sequence[Product],
    reason: str = "",
    numbers: Sequence[Mapping[str, Any]] = (),
) -> Exit:
    """The end of a job that is done, once all it names is durable."""
    for path in {folder / product.path for product in products}:
        _sync(path)
    for parent in {(folder / product.path).parent for product in products}:
        _sync(parent)
    return Exit(RunState.DONE, unit_words(reason), tuple(products), tuple(numbers))


def _reason(missing: Sequence[str], refused: Sequence[str] = ()) -> str:
    """What a run that is done does not have, and why, or rests on; empty when there is nothing to say."""
    count = "1 part was" if len(refused) == 1 else f"{len(refused)} parts were"
    said = [f"{count} refused: {'; '.join(dict.fromkeys(refused))}"] if refused else []
    return " ".join([*said, *dict.fromkeys(missing)])


def _parts(job: Job) -> Iterator[tuple[SeriesPart, tuple[Part[Any], ...]]]:
    """What the steps work on, one after the other; several at once where the rule takes parts together."""
    plan, specs = job.plan, registry.discover().specs
    paths = [Path(file) for file in job.files]
    found = parts(steps.received_as(plan, specs), paths, plan.split, plan.each_part)
    if plan.each_part == "together":
        yield WHOLE, tuple(found)
        return
    number = 0
    for one in found:
        number += 1 if plan.split or not number else 0  # only a split makes series of their own
        yield SeriesPart(number, one.label), (one,)


def _one_part(
    job: Job,
    part: SeriesPart,
    unread: tuple[Part[Any], ...],
    told: tuple[Path, Callable[[str], None]],
    before: Sequence[Product],
) -> tuple[list[Product], tuple[Mapping[str, Any], ...], list[str]]:
    folder, begin = told
    loaded = [one.load() for one in unread]
    give_back()
    received = {RECEIVED: loaded[0].value}
    if job.plan.each_part == "together":
        received |= {f"part_{number}": one.value for number, one in enumerate(loaded, 1)}
    results = steps.run(job.plan, received.__getitem__, registry.load, begin)
    begin("writing the results")
    first, *others = loaded
    said = list(dict.fromkeys(text for one in loaded for text in one.remarks))
    sources = replace(
        sources_of(first, [header for one in others for header in one.headers]), remarks=tuple(said)
    )
    products = write(results, job, sources, folder, part, before)
    return products, measured(results, part), [*said, *lacking(results)]


def _doing(folder: Path) -> str:
    try:
        return (folder / PROGRESS_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return "reading the job"


def _out_of_memory(doing: str, memory: int) -> str:
    allowed = f"the {memory / (1 << 30):.3g} GiB a run may use" if memory else "what this machine has"
    return f"{doing} ran out of memory: it needed more than {allowed}"


def _note(folder: Path) -> None:
    """Keep the traceback for whoever mends the operator; a failure here must not hide the first one."""
    try:
        (folder / ERROR_FILE).write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        traceback.print_exc()


def _log_to(path: Path) -> None:
    """Send what operators and libraries print, and the stack of a crash, to *path*."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable()


def _save(ended: Exit, folder: Path) -> None:
    """Write `products.json` whole or not at all, after everything it names."""
    part = folder / f"{EXIT_FILE}.part"
    part.write_text(json.dumps(exit_to_json(ended), indent=1), encoding="utf-8")
    _sync(part)
    part.rename(folder / EXIT_FILE)
    _sync(folder)


def _sync(path: Path) -> None:
    """Make a file's bytes, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the result is on disk: no thread of an operator may keep this process alive
