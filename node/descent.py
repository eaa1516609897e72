"""From what was read to what results descend from: the read room's Loaded as the derive room's Sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from pydicom import Dataset

from node.derive.sources import Sources
from node.read.loaded import Loaded


def sources_of(
    one: Loaded[Any], others: Sequence[Dataset] = (), headers: Sequence[Dataset] | None = None
) -> Sources:
    """The sources of what was made of *one*; *others* are headers of what else went into it.

    *headers* stand for those of *one* where they had to be rewritten. Of a stack the first volume stands for
    the result, and each volume can stand for what was made of it alone.
    """
    own = tuple(one.headers if headers is None else headers)
    if not one.sizes:
        return Sources(own, one.frames, one.value, tuple(others), remarks=one.remarks)
    spans = list(pairwise(accumulate(one.sizes, initial=0)))
    volumes = [
        Sources(
            own[begin:end],
            one.frames[begin:end],
            volume,
            (*own[:begin], *own[end:], *others),
            remarks=one.remarks,
        )
        for (begin, end), volume in zip(spans, one.value.volumes, strict=True)
    ]
    first = volumes[0]
    return replace(first, stack=tuple(volumes))
