"""Claims about a whole node under many senders for long: exact counts, flat memory, and an answer at any time."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from crash.crash_house import House, house
from peers import free_port, wait_for
from receive.rough_sender import PLACES, Job
from receive.soak_house import (
    Crowd,
    assert_ends,
    assert_exact,
    assert_quiet_log,
    assert_series,
    crowd,
    jobs_of,
    wait_indexed,
    wait_receiving,
)
from receive.soak_watch import QUICK, Asking, Sample, Watch, spread, used
from test_receive_processes import cycle
from tls_material import LOOPBACK, Papers

SENDERS = 8
POWER = ("R7", "R8")
"""Senders whose objects survive power loss; those of the others a killed process only."""
BY_TLS = ("R6", "R7")
RECEIVERS = 3
LEEWAY = 8 * 1024
"""kB that a process may grow by from a fifth of the way to the end: what an allocator keeps, and no leak."""
OPEN = 4
"""kB more of the conductor for each object of an open series: none is sealed before all that came is indexed."""


def soak(
    folder: Path, series: int, each: int, cuts: float, table: Callable[[str, list[str]], None]
) -> Asking:
    """Send so many series from eight senders that break off again and again; how quickly the status was told."""
    callings = [f"R{number}" for number in range(1, SENDERS + 1)]
    durability = {name: "power" if name in POWER else "process" for name in callings}
    senders = "\n".join(f"  {n}: {{sends_as: [{n}], durability: {d}}}" for n, d in durability.items())
    environ = {"PACSNODE__NODE__DURABILITY": "process", "PACSNODE__NODE__RECEIVERS": str(RECEIVERS)}
    papers, secured = Papers(folder / "papers"), free_port()
    node, _ = papers.pair("node", *LOOPBACK), papers.pair("sender")
    extra = (
        f"tls: {{listen: '127.0.0.1:{secured}', certificate: {node.certificate}, key: {node.key}, "
        f"trusted: {papers.ca.certificate}}}"
    )
    with house(
        folder / "site", {}, destinations=senders, environ=environ, extra=extra, quiet_for="5 s"
    ) as site:
        site.start()
        jobs = [
            replace(job, port=secured, papers=str(papers.folder)) if job.calling in BY_TLS else job
            for job in jobs_of(folder, site.port, callings, series, each, cuts=cuts)
        ]
        acks = warm_up(site, replace(jobs[0], series=[series + 1], acks=str(folder / "warm.acks"), cuts=0.0))
        watch, asking = Watch(site, (series + 1) * each), Asking(site)
        base = settled(site, watch, 0)
        asking.start()
        with crowd(jobs) as senders_at_work:
            follow(senders_at_work, watch)
            senders_at_work.assert_well()
            sent = time.monotonic() - senders_at_work.began
            lag = drain(watch, 60 + watch.planned / 50)
            wait_indexed(site, watch.planned, 60)
        asking.end()
        lines = [
            f"{senders_at_work.planned / sent:.0f} objects/s over {sent:.0f} s, indexed {lag:.1f} s after the last",
            *told(senders_at_work), *asking.lines(),
        ]  # fmt: skip
        end = settled(site, watch, 100)
        table(f"a soak of {senders_at_work.planned} objects", [*lines, *watch.lines()])
        assert senders_at_work.counted("lost") == {}
        acks |= senders_at_work.acks()
        again = assert_exact(site, acks, (series + 1) * each)
        unread = sum(n for what, n in senders_at_work.counted("cuts").items() if what.startswith("unread"))
        assert 0 < again <= unread
        assert_ends(site)
        assert_series(site, series + 1, each)
        assert_flat(watch, base, end)
        site.stop()
        logged = assert_quiet_log(site)
        within = [
            count for what, count in senders_at_work.counted("cuts").items() if what.split()[0] in PLACES
        ]
        assert logged["association_aborted"] == sum(within)
        counts = ", ".join(f"{event} {count}" for event, count in logged.most_common())
        table(f"a soak of {senders_at_work.planned} objects: came twice, logged", [f"{again} twice", counts])
    return asking


def warm_up(site: House, job: Job) -> dict[str, str]:
    """Have everybody at work once, so that what the processes use for good is there; what was acknowledged."""
    wait_receiving(site, RECEIVERS)
    cycle(site.port, 60, job.calling)
    with crowd([job]) as sender:
        wait_for(lambda: not sender.working, "the first series")
        sender.assert_well()
        wait_indexed(site, sender.planned, 60)
        return sender.acks()


def settled(site: House, watch: Watch, acknowledged: int) -> Sample:
    """What the processes use when no association is open any more."""
    pids = site.pids("receiver")
    calm: list[tuple[int, int]] = []

    def is_calm() -> bool:
        before = calm[:]
        calm[:] = [(used(pid).threads, used(pid).descriptors) for pid in pids]
        return calm == before

    wait_for(is_calm, "calm receivers")
    return watch.take(acknowledged)


def follow(senders: Crowd, watch: Watch) -> None:
    """Look at the processes at each tenth of the way, and say how far it is."""
    next_one = 10
    while senders.working:
        time.sleep(0.1)
        done = senders.acknowledged
        share = 100 * done // senders.planned
        if next_one <= share < 100:
            watch.take(share)
            rate = done / (time.monotonic() - senders.began)
            cuts = senders.counted("cuts").total()
            words = f"{done} of {senders.planned} acknowledged, {rate:.0f}/s, {cuts} times broken off"
            print(words, file=sys.__stderr__, flush=True)
            next_one = share - share % 10 + 10
    watch.take(100)


def drain(watch: Watch, seconds: float) -> float:
    """Look on at each tenth of the way that the index has still to go; seconds until all is indexed."""
    began, next_one = time.monotonic(), watch.samples[-1].indexed + 10
    while (done := watch.indexed()) < watch.planned:
        if 100 * done // watch.planned >= next_one:
            watch.take(100)
            print(f"{done} of {watch.planned} indexed", file=sys.__stderr__, flush=True)
            next_one = watch.samples[-1].indexed + 10
        assert time.monotonic() - began < seconds, f"only {done} indexed"
        time.sleep(0.3)
    return time.monotonic() - began


def told(senders: Crowd) -> list[str]:
    """What the senders did."""
    cuts = senders.counted("cuts")
    ways: Counter[str] = Counter()
    for what, count in cuts.items():
        ways[what.split()[1]] += count
    associations = sum(int(str(one["associations"])) for one in senders.told)
    return [
        f"{senders.acknowledged} acknowledged over {associations} associations, {cuts.total()} times broken off: "
        + ", ".join(f"{way} {count}" for way, count in sorted(ways.items())),
        ", ".join(f"{what} {count}" for what, count in sorted(cuts.items())),
    ]


def assert_flat(watch: Watch, base: Sample, end: Sample) -> None:
    """The same receivers as before, back where they began; no process grew on the way."""
    for name in (name for name in base.used if name.startswith("receiver")):
        before, after = base.used[name], end.used[name]
        assert after.threads <= before.threads, name
        assert after.descriptors <= before.descriptors, name
    allowed = {"conductor": LEEWAY + OPEN * watch.planned}
    grown = {name: kb for name, kb in watch.growth(20).items() if kb > allowed.get(name.split()[0], LEEWAY)}
    assert not grown, f"kB since 20 %: {grown}"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_small_soak(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """2 000 objects from eight senders that break off again and again: each is kept exactly once, byte for byte."""
    soak(tmp_path, 16, 125, 0.1, table)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_objects(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """The same with 100 000 (PACSNODE_SOAK_OBJECTS), and the status is told within half a second all the while."""
    each = 500
    series = max(SENDERS, int(os.environ.get("PACSNODE_SOAK_OBJECTS", "100000")) // each)
    asking = soak(tmp_path, series, each, 0.03, table)
    assert max(asking.warm) < QUICK, spread(asking.warm)
