"""Connected components: the pieces of a mask that count."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import Mask, Refused, Unit

Bools = NDArray[np.bool_]
Millilitres = Annotated[float, Unit("ml")]


def connected_component(
    mask: Mask,
    *,
    keep: Literal["largest", "all_above"] = "largest",
    at_least: Millilitres | None = None,
    connectivity: Literal["faces", "corners"] = "faces",
) -> Mask:
    """Keep the largest connected piece of a mask, or all pieces of *at_least* a volume.

    Voxels belong together where they share a face (6 neighbours), or also an edge or a corner (26). Of
    several pieces of the same largest size the one that comes first in the volume is kept. The volume of a
    piece is its number of voxels times that of a voxel. With *largest*, *at_least* is what it must reach.

    Raises Refused where the mask is empty or no piece is large enough.
    """
    if keep == "all_above" and at_least is None:
        raise Refused("keep: all_above needs at_least, the volume from which on a piece is kept")
    neighbours = ndimage.generate_binary_structure(3, 1 if connectivity == "faces" else 3)
    pieces, count = ndimage.label(mask.array, neighbours)
    if not count:
        raise Refused(f"the mask {mask.label} is empty")
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    millilitres = sizes * mask.voxel_volume / 1000
    kept = np.zeros(count + 1, bool)
    if keep == "largest":
        kept[sizes.argmax()] = True
    else:
        kept[1:] = True
    if at_least is not None:
        kept &= millilitres >= at_least * (1 - 1e-9)
    if not kept.any():
        raise Refused(
            f"the largest of {count} pieces of {mask.label} has {millilitres.max():.3g} ml, "
            f"less than {at_least:g} ml"
        )
    what = "largest piece" if keep == "largest" else f"pieces of at least {at_least:g} ml"
    description = f"{mask.description}; {what} connected over {connectivity}".removeprefix("; ")
    return replace(mask, array=kept[pieces], description=description)


def largest_piece(mask: Bools) -> Bools | None:
    """The largest piece connected over faces, of several as large the first in the volume; None in an empty mask.

    Counted slice by slice: sorting the labels would hold a second copy of them, twice the volume's memory.
    """
    if not mask.any():
        return None
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8)))
    labels = sitk.GetArrayViewFromImage(pieces)
    most = int(labels.max())
    sizes = np.zeros(most + 1, np.int64)
    for layer in labels:
        sizes += np.bincount(layer.ravel(), minlength=most + 1)
    sizes[0] = 0
    found: Bools = labels == int(sizes.argmax())
    return found
