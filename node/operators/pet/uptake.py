"""Uptake in a region: maximum, mean, peak, metabolic volume and total lesion glycolysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Mask, Measurement, Number, Refused, Remark, Report, Segments, Unit, Volume
from node.operators.codes import MAXIMUM, MEAN, MILLILITER, PEAK, private_code
from node.operators.pet.measuring import (
    GLYCOLYSIS,
    METABOLIC_VOLUME,
    method_of,
    origin_of,
    quantity_of,
    refuse_elsewhere,
    total_unit,
)
from node.operators.pet.spheres import Peak, peak
from node.operators.region import Brought, beyond, brought, told_apart

Percent = Annotated[float, Unit("%")]


def uptake(
    volume: Volume, mask: Mask, *, fraction: Percent = 41.0, threshold: Number | None = None
) -> Report:
    """Measure uptake in a region of a PET volume in SUV or Bq/ml.

    Maximum and mean over the region's voxels; the peak, which is the highest mean over a sphere of 1 cm³ whose
    centre lies in the region and which may reach out of it (PERCIST, Wahl et al. 2009, J Nucl Med 50:122S,
    doi:10.2967/jnumed.108.057307), voxels on its surface counting by the part that lies in it. The metabolic volume
    is that of the region's voxels of at least *fraction* percent of its maximum (41 %: EANM guideline 2.0, Boellaard
    et al. 2015, doi:10.1007/s00259-014-2961-x), and, if given, of at least *threshold* in the volume's unit; total
    lesion glycolysis is the mean in it times its volume. Voxels that were not measured are left out.

    Raises Refused where the region is empty or on another grid, nothing in it was measured, or the volume is in
    another unit. What only one number lacks is said in a remark.
    """
    one = _of(volume, Brought(mask, mask), fraction, threshold)
    return Report(one.measurements, (*beyond(mask), *one.remarks, *_centres([one]), *origin_of(volume)))


@dataclass(frozen=True, eq=False)
class _Uptake:
    """What was found in one region."""

    label: str
    measurements: tuple[Measurement, ...]
    remarks: tuple[Remark, ...]
    peak: Peak | None


def _of(volume: Volume, there: Brought, fraction: float, threshold: float | None) -> _Uptake:
    mask, region = there.mask, there.region
    if not 0 < fraction < 100:
        raise Refused(f"fraction {fraction:g} % is out of range: more than 0, less than 100")
    name, method = quantity_of(volume), method_of(volume)
    refuse_elsewhere(volume, mask)
    values = volume.array[mask.array if volume.valid is None else mask.array & volume.valid]
    if not values.size:
        raise Refused(f"nothing in the region {mask.label} was measured")
    best = peak(volume, mask)
    top = float(values.max())
    found = [
        Measurement(name, top, volume.unit, MAXIMUM, method, region),
        Measurement(name, float(values.mean(dtype=np.float64)), volume.unit, MEAN, method, region),
    ]
    if best is not None:
        found.append(Measurement(name, best.value, volume.unit, PEAK, method, region))
    remarks = [
        Remark(f"{mask.label}: {said}.", missing=missing) for said, missing in _said(volume, best, top)
    ]
    limits = [(fraction / 100 * top, of_maximum(fraction))]
    if threshold is not None:
        limits.append((threshold, at_least(threshold, volume.unit)))
    for limit, how in limits:
        if limit <= 0:
            remarks.append(
                Remark(
                    f"{mask.label}: no metabolic volume, since its threshold would be {limit:g}.",
                    missing=True,
                )
            )
            continue
        found += _volume(volume, region, values[values >= limit], how)
    return _Uptake(mask.label, tuple(found), tuple(remarks), best)


def _said(volume: Volume, best: Peak | None, top: float) -> Iterator[tuple[str, bool]]:
    """Why a number is missing, or more than it seems; and whether one is missing."""
    if best is None:
        yield "no peak, since a sphere of 1 cm³ reaches out of the image everywhere in the region", True
    elif best.value > top:
        yield "the peak exceeds the maximum, since its sphere reaches into hotter tissue outside", False
    if total_unit(volume) is None:
        yield f"no total lesion glycolysis, which is of SUV and not of {volume.unit.value}", True


def _centres(found: Sequence[_Uptake]) -> list[Remark]:
    """Where the peaks are."""
    said = []
    for one in found:
        if one.peak is not None:
            x, y, z = one.peak.position
            said.append(f"{one.label} {x:.1f}, {y:.1f}, {z:.1f}")
    if not said:
        return []
    return [Remark(f"Centres of the spheres of 1 cm³ with the peaks (x, y, z in mm): {'; '.join(said)}.")]


def of_maximum(fraction: float) -> Code:
    """The method of a volume above a share of the maximum."""
    return private_code(
        f"PCTOFMAX{fraction:g}", f"Voxels of at least {fraction:g} % of the region's maximum", whole=True
    )


def at_least(threshold: float, unit: Code) -> Code:
    """The method of a volume above a fixed value: 4 of one kind of SUV is another than 4 of another."""
    kind = "".join(c for c in unit.value.partition("{")[2] or unit.value if c.isalnum()).upper()
    meaning = f"Voxels of at least {threshold:g} {unit.value}"
    return private_code(f"ATLEAST{threshold:g}{kind}", meaning, whole=True)


def _volume(volume: Volume, region: Mask, above: NDArray[Any], how: Code) -> list[Measurement]:
    """How much lies above a threshold, and its glycolysis."""
    millilitres = above.size * volume.voxel_volume / 1000
    found = [Measurement(METABOLIC_VOLUME, millilitres, MILLILITER, method=how, region=region)]
    unit = total_unit(volume)
    if unit is not None:
        total = float(above.mean(dtype=np.float64)) * millilitres if above.size else 0.0
        found.append(Measurement(GLYCOLYSIS, total, unit, method=how, region=region))
    return found


def uptake_segments(
    volume: Volume, segments: Segments, *, fraction: Percent = 41.0, threshold: Number | None = None
) -> Report:
    """Measure uptake in every segment of a segmentation, each as `uptake` does it, in the segmentation's order.

    A segment is put on the grid of *volume* as `region` does it. Where several have one label, their number is put
    behind it. One that is empty there or cannot be measured is named in a remark, and the others are measured.

    Raises Refused where no segment can be measured, with the reason of each; for what lies in another frame of
    reference; and where the volume is in another unit than SUV or Bq/ml.
    """
    quantity_of(volume)
    found: list[_Uptake] = []
    remarks: list[Remark] = []
    for mask in told_apart(segments):
        try:
            there = brought(volume, segments, mask)
            one = _of(volume, there, fraction, threshold)
        except Refused as reason:
            remarks.append(Remark(f"{mask.label}: not measured, since {reason}.", missing=True))
        else:
            found.append(one)
            remarks += [*there.remarks, *one.remarks]
    if not found:
        raise Refused("no segment can be measured: " + " ".join(remark.text for remark in remarks))
    measurements = tuple(m for one in found for m in one.measurements)
    return Report(measurements, (*remarks, *_centres(found), *origin_of(volume)))
