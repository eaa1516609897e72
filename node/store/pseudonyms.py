"""The key of de-identification, and the table of who stands behind which pseudonym.

The key is a file of the data folder that only the node may read. It is made on first need, never anew: with
another one every patient would become a second patient wherever copies went.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from node.store.files import Disk, Folder
from node.store.schema import pseudonym

KEY = "deidentify.key"
"""In the data folder; a backup holds it (`ops.backup.SMALL`)."""
_BYTES = 32


def key_of(tx: Connection, data: Path) -> Path:
    """Where the key is; made where there is none and nobody has a pseudonym yet."""
    path = data / KEY
    if not path.exists() and tx.scalar(select(pseudonym.c.pseudonym).limit(1)) is None:
        _make(path)
    return path


def _make(path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    disk = Disk()
    try:
        disk.write(descriptor, secrets.token_hex(_BYTES).encode("ascii"))
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    with contextlib.suppress(FileExistsError):  # a key that somebody made meanwhile is the key
        os.link(part, path)
    part.unlink()
    disk.sync_folder(Folder(path.parent))


def remember(tx: Connection, said: Mapping[str, str], now: datetime) -> None:
    """Note who stands behind a pseudonym; the first time counts."""
    name = said["pseudonym"]
    if tx.scalar(select(pseudonym.c.pseudonym).where(pseudonym.c.pseudonym == name)) is None:
        tx.execute(
            insert(pseudonym).values(
                pseudonym=name, patient_id=said["patient_id"], issuer=said["issuer"],
                study_uid=said["study_uid"], first_at=now,
            )
        )  # fmt: skip


def look_up(tx: Connection, name: str, patient_id: str) -> Sequence[Mapping[str, Any]]:
    """Who stands behind *name*, and which names stand for *patient_id*; an empty one does not narrow."""
    asked = select(pseudonym).order_by(pseudonym.c.first_at, pseudonym.c.pseudonym)
    if name:
        asked = asked.where(pseudonym.c.pseudonym == name)
    if patient_id:
        asked = asked.where(pseudonym.c.patient_id == patient_id)
    return [dict(row) for row in tx.execute(asked).mappings()]
