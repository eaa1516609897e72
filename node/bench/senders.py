"""`python -m node.bench.senders WAY PORT FOLDER`: one round of one Python sender in a process of its own.

Says `ready` when everything is imported and the files are listed, waits for a line, sends over one association,
and says what that took as JSON. So neither the start of Python nor the bench's own memory is measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pynetdicom import AE, build_context

from node.bench.peers import MAX_PDU, PACS, SENDER, memory_of
from node.send import scu
from node.send.negotiation import configure
from node.send.protocol import Destination, Item, Kind, Result


def ours(port: int, items: Sequence[Item]) -> str:
    """What the node's sender process does for a batch; returns what went wrong."""
    results: list[Result] = []
    to = Destination(PACS, "127.0.0.1", port, PACS, SENDER)
    lost = scu.send_objects(to, items, results.append)
    stored = sum(result.kind is Kind.STORED for result in results)
    return lost or ("" if stored == len(items) else f"{stored} of {len(items)} objects were stored")


def pynetdicom(port: int, items: Sequence[Item]) -> str:
    """`Association.send_c_store` with each file's path, as its documentation shows; returns what went wrong."""
    pairs = dict.fromkeys((item.sop_class, item.transfer_syntax) for item in items)
    contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]
    association = AE(ae_title=SENDER).associate(
        "127.0.0.1", port, contexts=contexts, ae_title=PACS, max_pdu=int(MAX_PDU)
    )
    if not association.is_established:
        return "the association was not accepted"
    failed = 0
    for item in items:
        status = association.send_c_store(item.path)
        failed += status.get("Status") != 0
    association.release()
    return f"{failed} of {len(items)} objects were not stored" if failed else ""


WAYS: dict[str, Callable[[int, Sequence[Item]], str]] = {"ours": ours, "pynetdicom": pynetdicom}


def main(way: str, port: str, folder: str) -> None:
    """Serve one round."""
    configure()
    items = [scu.item_of(path, number) for number, path in enumerate(sorted(Path(folder).iterdir()))]
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    began, cpu = time.perf_counter(), time.process_time()
    try:
        wrong = WAYS[way](int(port), items)
    except Exception as error:  # noqa: BLE001 - a peer's fault is a line of the report
        wrong = f"{type(error).__name__}: {error}"
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    print(json.dumps({**took, "memory": memory_of("self"), "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
