"""Golden compare: a result against the one that was looked at and kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

WRITE = "PACSNODE_GOLDEN"
"""Set to `write` in the environment, every golden file is written anew."""


def assert_golden(result: Any, file: Path, *, tolerance: float = 0.0) -> None:
    """Compare what an operator returned with the golden *file* (.npz); numbers may differ by *tolerance*.

    Raises AssertionError naming what differs and by how much, or what to do where there is no such file.
    """
    found = flattened(result)
    if os.environ.get(WRITE) == "write":
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, allow_pickle=False, **found)
        return
    if not file.exists():
        raise AssertionError(f"{file} does not exist; look at the result, then run with {WRITE}=write once")
    with np.load(file, allow_pickle=False) as golden:
        wrong = [*_differences(found, dict(golden), tolerance)]
    if wrong:
        raise AssertionError(f"not what {file.name} holds: {'; '.join(wrong)}")


def flattened(result: Any, name: str = "result") -> dict[str, np.ndarray]:
    """Every array, number and text of *result* under the path of its fields; callables and facts left out."""
    if isinstance(result, list | tuple):
        parts = [flattened(item, f"{name}[{number}]") for number, item in enumerate(result)]
        return {key: value for part in parts for key, value in part.items()}
    if is_dataclass(result) and not isinstance(result, type):
        parts = [flattened(getattr(result, f.name), f"{name}.{f.name}") for f in fields(result)]
        return {key: value for part in parts for key, value in part.items()}
    if result is None or callable(result) or isinstance(result, Mapping):
        return {}
    if isinstance(result, bytes):
        return {name: np.frombuffer(result, np.uint8)}
    return {name: np.asarray(result)}


def _differences(found: Mapping[str, np.ndarray], golden: Mapping[str, np.ndarray], tolerance: float) -> Any:
    for name in sorted(found.keys() ^ golden.keys()):
        yield f"{name} is only in {'the result' if name in found else 'the golden file'}"
    for name in sorted(found.keys() & golden.keys()):
        ours, theirs = found[name], golden[name]
        if ours.shape != theirs.shape:
            yield f"{name} has shape {ours.shape}, not {theirs.shape}"
        elif ours.dtype.kind in "US" or theirs.dtype.kind in "US":
            if not np.array_equal(ours, theirs):
                yield f"{name} is {ours}, not {theirs}"
        else:
            apart = np.abs(ours.astype(float) - theirs.astype(float))
            if not (np.isnan(ours.astype(float)) == np.isnan(theirs.astype(float))).all():
                yield f"{name} has other NaNs"
            elif apart.size and np.nanmax(apart, initial=0.0) > tolerance:
                yield f"{name} differs by up to {np.nanmax(apart):.6g}, allowed is {tolerance:g}"
