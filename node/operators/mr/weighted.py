"""Which volumes of a diffusion stack belong together: per b-value its directions, or the scanner's own trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node.operator import Refused, Stack, Volume
from node.operators.mr.background import refuse_incomparable

SAME_B = 0.02
"""Share by which b-values of one group may differ: scanners write what they reached (998.6) or what was asked for."""
SAME_B_LEAST = 5.0
"""The same in s/mm², for small ones: 0 and 0.004 are both unweighted."""
SAME_ECHO = 0.1
"""ms; volumes of different echo times differ by T2 as well."""
EVEN = 0.02
"""How far the mean of g·gᵀ may be from ⅓ on its diagonal, and from 0 beside it, for directions to be spread evenly."""

_DIRECTED = ("DIRECTIONAL", "BMATRIX")


@dataclass(frozen=True, eq=False)
class Weighting:
    """The volumes of one b-value."""

    b: float
    """s/mm², their mean: for one exponential the mean of logarithms belongs to it exactly."""
    volumes: tuple[Volume, ...]
    how: str
    """How the volumes stand for the b-value, in words; empty where there is one unweighted volume."""

    def logarithm(self, k: int) -> NDArray[np.float64]:
        """Mean of the logarithms of slice *k*: that of the geometric mean; not finite where one has none.

        A value of 0 or less has no logarithm, nor has what was not measured.
        """
        total = np.zeros(self.volumes[0].array.shape[1:])
        with np.errstate(divide="ignore", invalid="ignore"):
            for volume in self.volumes:
                total += np.log(volume.array[k], dtype=np.float64)
                if volume.valid is not None:
                    total[~volume.valid[k]] = -np.inf
        total /= len(self.volumes)
        return total


@dataclass(frozen=True, eq=False)
class Weightings:
    """What a diffusion stack holds, by ascending b-value."""

    groups: tuple[Weighting, ...]
    notes: tuple[str, ...]
    """What was not used, or was taken to be what it does not say, in words."""

    @property
    def b_values(self) -> tuple[float, ...]:
        """s/mm², ascending."""
        return tuple(group.b for group in self.groups)


def weightings(
    stack: Stack, least: float = 0.0, most: float | None = None, unstated: float | None = None
) -> Weightings:
    """Group the volumes of *stack* by b-value, from *least* to *most* s/mm².

    *unstated* is the b-value of volumes that state none, where the rule says so. Diffusion maps that came along
    (Image Type ADC, FA …) are left out. Where a b-value has three directions or more, they are used; else the
    scanner's own trace where there is one; else what there is. Raises Refused where a volume states no b-value,
    values have a unit, echo times differ, or images of several kinds share what weighted them.
    """
    images = [v for v in stack.volumes if v.facts.get("computed") != "yes"]
    silent = sum("b_value" not in v.facts for v in images) if unstated is not None else 0
    images = [v if "b_value" in v.facts or unstated is None else _with_b(v, unstated) for v in images]
    maps = len(stack.volumes) - len(images)
    notes = [f"not used: {maps} diffusion map{'s' if maps > 1 else ''}"] if maps else []
    notes += [f"{silent} volumes state no b-value, {unstated:g} by the rule"] if silent else []
    _check(images)
    _refuse_kinds(stack.by, images)
    used = [v for v in images if v.facts["b_value"] >= least and (most is None or v.facts["b_value"] <= most)]
    groups = []
    for alike in _alike(sorted(used, key=lambda v: float(v.facts["b_value"]))):
        group, unused = _chosen(alike)
        groups.append(group)
        notes += [f"not used: {unused} of b {group.b:.4g}"] if unused else []
    return Weightings(tuple(groups), tuple(notes))


def _with_b(volume: Volume, b_value: float) -> Volume:
    return replace(volume, facts={**volume.facts, "b_value": b_value})


def _check(images: Sequence[Volume]) -> None:
    if not images:
        raise Refused("the series holds diffusion maps only, no diffusion-weighted images")
    without = sum("b_value" not in v.facts for v in images)
    if without:
        raise Refused(
            f"{without} of {len(images)} volumes state no b-value, neither in the standard attribute nor in one of "
            "the makers' private ones; were private attributes removed by an anonymiser? Where a scanner leaves it out "
            "of unweighted images (Canon), or labels them as weighted without a gradient (GE tensors before release "
            "30), say `unstated_b: 0`; else narrow the rule with `use`"
        )
    refuse_incomparable(images)
    echoes = sorted({float(v.facts["echo_time"]) for v in images if "echo_time" in v.facts})
    if echoes and echoes[-1] - echoes[0] > SAME_ECHO:
        raise Refused(
            f"the b-values have different echo times ({echoes[0]:g} to {echoes[-1]:g} ms): their signal differs by "
            "T2 as well; part them with `split: [EchoTime]`"
        )


def _refuse_kinds(by: Sequence[str], images: Sequence[Volume]) -> None:
    """Refuse images that only Image Type tells apart; that it differs between b-values is as Siemens writes it."""
    if "image_type" not in by:
        return
    kinds: dict[tuple[object, ...], set[str]] = {}
    for volume in images:
        weighted = tuple(volume.facts.get(name) for name in by if name != "image_type")
        kinds.setdefault(weighted, set()).add("\\".join(volume.facts.get("image_type", ())))
    several = next((sorted(found) for found in kinds.values() if len(found) > 1), None)
    if several:
        raise Refused(
            f"images of several kinds have the same b-value and direction (Image Type {' and '.join(several)}); "
            "narrow the rule with `use`"
        )


def _alike(volumes: Sequence[Volume]) -> list[list[Volume]]:
    """*volumes*, in ascending order, in groups of one b-value each."""
    groups: list[list[Volume]] = []
    for volume in volumes:
        b = float(volume.facts["b_value"])
        first = float(groups[-1][0].facts["b_value"]) if groups else 0.0
        if groups and b - first <= max(SAME_B_LEAST, SAME_B * first):
            groups[-1].append(volume)
        else:
            groups.append([volume])
    return groups


def _chosen(volumes: Sequence[Volume]) -> tuple[Weighting, str]:
    """The volumes that stand for their b-value, and in words which do not."""
    b = float(np.mean([v.facts["b_value"] for v in volumes]))
    if b <= SAME_B_LEAST:
        how = f"mean of {len(volumes)} unweighted volumes" if len(volumes) > 1 else ""
        return Weighting(b, tuple(volumes), how), ""
    directed = [v for v in volumes if v.facts.get("directionality") in _DIRECTED]
    traces = [v for v in volumes if v.facts.get("directionality") == "ISOTROPIC"]
    others = [v for v in volumes if v not in directed and v not in traces]
    if len(_distinct(directed)) >= 3 or (directed and not traces):
        unused = _counted(traces, "scanner's trace") or _counted(others, "volume without direction")
        return Weighting(_b(directed), tuple(directed), _directions(directed)), unused
    if traces:
        return Weighting(_b(traces), tuple(traces), "the scanner's own trace"), _counted(
            directed, "direction"
        )
    how = f"geometric mean of {len(others)} volumes" if len(others) > 1 else "one volume"
    return Weighting(b, tuple(volumes), f"{how} whose direction is not stated"), ""


def _b(volumes: Sequence[Volume]) -> float:
    return float(np.mean([v.facts["b_value"] for v in volumes]))


def _counted(volumes: Sequence[Volume], what: str) -> str:
    return f"{len(volumes)} {what}{'s' if len(volumes) > 1 else ''}" if volumes else ""


def _distinct(volumes: Sequence[Volume]) -> list[tuple[float, ...] | None]:
    """Gradients, opposite ones as one; None for each whose direction in the patient is not known."""
    found: list[tuple[float, ...] | None] = []
    for volume in volumes:
        gradient = volume.facts.get("gradient")
        if gradient is None:
            found.append(None)
        elif not any(known is not None and abs(np.dot(known, gradient)) > 1 - 1e-4 for known in found):
            found.append(tuple(gradient))
    return found


def _directions(volumes: Sequence[Volume]) -> str:
    distinct = _distinct(volumes)
    if len(distinct) == 1:
        return "one direction only, no trace" if len(volumes) == 1 else (
            f"geometric mean of {len(volumes)} volumes of one direction only, no trace"
        )  # fmt: skip
    known = [np.array(g) for g in (v.facts.get("gradient") for v in volumes) if g is not None]
    if len(known) < len(volumes):
        return f"geometric mean of {len(volumes)} directions, how they are spread is not stated"
    spread = np.mean([np.outer(g, g) for g in known], axis=0)
    even = np.abs(spread - np.eye(3) / 3).max() <= EVEN
    return f"geometric mean of {len(volumes)} directions, {'evenly' if even else 'not evenly'} spread"
