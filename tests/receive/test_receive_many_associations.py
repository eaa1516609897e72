"""A long series over one association and over many: the count is the same, and no order is assumed."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crash.crash_house import house
from receive.rough_sender import CT, EXPLICIT, Mint, digest_of, pdus, series_uid, sop_uid
from receive.scripted_peer import RELEASE, read_pdu
from receive.soak_house import assert_exact, wait_indexed, wait_receiving, write_templates

from node.bench.wire import associate_request, read_response, store_request

IMAGES = 2000
ASSOCIATIONS = (1, 4, 16, 64)
RECEIVERS = 3


def send(port: int, made: list[tuple[str, bytes]], open_at_once: threading.Barrier) -> dict[str, str]:
    """Send these over one association, once all others are open; SOP Instance UID → digest."""
    into = memoryview(bytearray(1 << 16))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(associate_request("PACSNODE", "CT01", CT, EXPLICIT))
        kind, body = read_pdu(connection)
        assert kind == 2, (kind, body)
        open_at_once.wait(60)
        for message, (uid, dataset) in enumerate(made, 1):
            request = pdus(store_request(message, CT, uid.encode()), 3, 16000)
            connection.sendall(b"".join([*request, *pdus(dataset, 0, 16000)]))
            read_response(connection, into, message)
        connection.sendall(RELEASE)
        assert read_pdu(connection)[0] == 6
    return {uid: digest_of(dataset) for uid, dataset in made}


def send_series(port: int, mint: Mint, series: int, associations: int) -> dict[str, str]:
    """Send a whole series, shuffled and shared out among associations that are all open at once."""
    numbers = list(range(1, IMAGES + 1))
    random.Random(associations).shuffle(numbers)
    made = [(sop_uid(series, number), mint.make(series, number)) for number in numbers]
    barrier = threading.Barrier(associations)
    with ThreadPoolExecutor(associations) as pool:
        shares = [pool.submit(send, port, made[nth::associations], barrier) for nth in range(associations)]
        return {uid: digest for share in shares for uid, digest in share.result().items()}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_long_series_is_one_series_over_any_number_of_associations(
    tmp_path: Path, table: Callable[[str, list[str]], None]
) -> None:
    """2 000 images, shuffled, over 1, 4, 16 and 64 associations at once: each time one whole series of 2 000."""
    environ = {"PACSNODE__NODE__RECEIVERS": str(RECEIVERS)}
    limits = f"limits: {{associations: {max(ASSOCIATIONS)}}}"
    with house(tmp_path / "site", {}, extra=limits, environ=environ, quiet_for="5 s") as site:
        site.start()
        wait_receiving(site, RECEIVERS)
        mint = Mint(write_templates(tmp_path))
        acks: dict[str, str] = {}
        for series, associations in enumerate(ASSOCIATIONS, 1):
            acks |= send_series(site.port, mint, series, associations)
        wait_indexed(site, len(acks), 120)
        assert assert_exact(site, acks, IMAGES * len(ASSOCIATIONS)) == 0
        rows = {row["series_uid"]: row for row in site.table("series")}
        assert len(rows) == len(site.table("series")) == len(ASSOCIATIONS)
        over = Counter((row["series_id"], row["association"]) for row in site.table("instance"))
        for series, associations in enumerate(ASSOCIATIONS, 1):
            row = rows[series_uid(series)]
            assert (row["revision"], row["instances"], row["incomplete"]) == (1, IMAGES, "")
            assert sum(1 for series_id, _ in over if series_id == row["id"]) == associations
        table("series by associations", [f"{row['series_uid']}: {row['reason']}" for row in rows.values()])
