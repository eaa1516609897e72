"""The transcoder: `python -m node.transcoder`. One object per line in, a copy of it out.

A copy is changed as its rule says, or in another transfer syntax, or both.

Decoders and encoders of pixels run here, apart from the reader, so that a slow one delays no indexing, and a
crash, a hang or a memory bomb costs one delivery and nothing else. The received file is only read.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node import __version__, faults
from node.derive import lossy
from node.derive.identity import IMPLEMENTATION, LOSSY_QUALITY, lossy_copy, lossy_series
from node.errors import Broken, Refused
from node.read import encoding, transcode
from node.read.encoding import Bytes, Element, Tree
from node.send.part10 import dataset_extent
from node.store.files import Disk
from node.treating import Treated, treated, tree_of

_PR_SET_PDEATHSIG = 1
_SERIES = 0x0020000E


def answer(line: str) -> dict[str, Any]:
    """One request's answer: syntax and UID of the copy that was made, or why none could be."""
    asked = json.loads(line)
    tried: list[str] = []
    faults.reach("before-transcode")
    try:
        source = _source(asked)
        own = encoding.kept_syntax(source.syntax)
        for to in asked["to"] or [own]:
            try:
                copy, sop_uid = _copy(source, asked, to)
            except transcode.Undecodable:
                raise
            except Refused as error:
                tried.append(f"{UID(to).name}: {error}")
                continue
            faults.reach("before-transcoded")
            Disk().replace_file(Path(asked["out"]), copy)
            return {"syntax": to, "bytes": len(copy), "sop_uid": sop_uid, "pseudonym": dict(source.pseudonym)}
    except OSError as error:
        return {"later": f"the copy could not be written or its source not read: {error.strerror}"}
    except MemoryError:
        return {"failed": f"it needs more memory than the {_memory()} that one object may take"}
    except (Broken, Refused) as error:
        return {"failed": str(error)}
    except Exception as error:  # noqa: BLE001 - the conductor writes the reason down and goes on
        return {"failed": f"the transcoder failed over it ({type(error).__name__})"}
    return {"failed": "; ".join(tried)}


def _memory() -> str:
    return f"{resource.getrlimit(resource.RLIMIT_DATA)[0] / 1e9:.3g} GB"


def _source(asked: Mapping[str, Any]) -> Treated:
    """What is copied: the object as it is kept, or what its rule makes of it."""
    with Path(asked["source"]).open("rb") as file:
        offset, length = dataset_extent(file)
        file.seek(offset)
        tree = encoding.read_tree(file.read(length), asked["syntax"])
    kept = Treated(tree, asked["syntax"], asked["sop_uid"])
    return treated(kept, asked) if "treatment" in asked else kept


def _copy(source: Treated, asked: Mapping[str, Any], to: str) -> tuple[bytes, str]:
    """The whole Part 10 file of the copy, and its SOP Instance UID."""
    tree, sop_uid = source.tree, source.sop_uid
    if "treatment" not in asked or to != source.syntax:  # else it is in that syntax already
        quality = LOSSY_QUALITY.get(to)
        made = transcode.recoded(tree, source.syntax, to, quality[1] if quality else None)
        changed = made.tree
        if quality:
            sop_uid, series_uid = _lossy_uids(source, asked, to)
            marks = lossy.marks(_header(tree), (sop_uid, series_uid), to, made.ratio)
            changed = encoding.changed(changed, tree_of(marks))
        tree = changed
    meta = b"".join(encoding.chunks(_meta(asked["sop_class"], sop_uid, to), implicit=False))
    head = b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta
    parts: list[Bytes] = [head, *encoding.chunks(tree, implicit=to == encoding.IMPLICIT)]
    return b"".join(parts), sop_uid


def _lossy_uids(source: Treated, asked: Mapping[str, Any], to: str) -> tuple[str, str]:
    """SOP and Series Instance UID of a copy with loss; a treated object may be of another series than its source."""
    series = encoding.find(source.tree, _SERIES)
    if "treatment" in asked and series is not None:
        return lossy_copy(asked["key"], to), lossy_series(series.text, to)
    sop_uid, series_uid = asked["lossy"][to]
    return sop_uid, series_uid


def _meta(sop_class: str, sop_uid: str, syntax: str) -> Tree:
    values = {
        0x00020002: sop_class, 0x00020003: sop_uid, 0x00020010: syntax, 0x00020012: IMPLEMENTATION,
    }  # fmt: skip
    uids = (Element(tag, b"UI", uid.encode("ascii", "replace")) for tag, uid in values.items())
    version = Element(0x00020013, b"SH", f"PACSNODE_{__version__}"[:16].encode())
    return (Element(0x00020001, b"OB", b"\0\1"), *uids, version)


def _header(tree: Tree) -> Dataset:
    """What of the header says how the image came about, as pydicom takes it."""
    wanted = {tag_for_keyword(keyword) for keyword in lossy.READ}
    few = b"".join(encoding.chunks((e for e in tree if e.tag in wanted), implicit=False))
    return dcmread(BytesIO(few), force=True) if few else Dataset()


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer every line on stdin until it ends."""
    parser = argparse.ArgumentParser(prog="python -m node.transcoder")
    parser.add_argument("--memory", type=int, default=4 * 10**9, help="bytes this process may use")
    memory = parser.parse_args(arguments).memory
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.nice(5)
    with contextlib.suppress(OSError):  # not every container shows this file
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    warnings.simplefilter("ignore")  # pydicom warns with a peer's values, and they may name a patient
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line), separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
