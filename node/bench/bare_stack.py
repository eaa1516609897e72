"""What the bare calls work on, and the outline of the body, which several of them need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass
class Stack:
    """What was read, and what steps before this one made."""

    array: Floats
    spacing: tuple[float, float, float]
    """Slices, rows, columns, mm."""
    mask: Bools | None = None
    lungs: tuple[Bools, ...] = ()


def segment_body(stack: Stack) -> None:
    """Threshold, opening slice by slice, the largest piece, its rim, and filled holes."""
    bright = sitk.GetImageFromArray((stack.array > -300).view(np.uint8))
    radius = [math.floor(4.0 / s) for s in stack.spacing[:0:-1]]
    opened = sitk.BinaryMorphologicalOpening(bright, [*radius, 0], sitk.sitkBall)
    pieces = sitk.ConnectedComponent(opened)
    labels = sitk.GetArrayViewFromImage(pieces)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    core = labels == sizes.argmax()
    near = ndimage.generate_binary_structure(2, 1)[None]
    body = ndimage.binary_dilation(core, near, min(radius), mask=sitk.GetArrayViewFromImage(bright) > 0)
    for k in range(len(body)):
        outside, _ = ndimage.label(np.pad(~body[k], 1, constant_values=True))
        body[k] = (outside != outside[0, 0])[1:-1, 1:-1]
    stack.mask = body
