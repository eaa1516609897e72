"""A head of known tissues, seen by magnetic resonance: diffusion, contrast over time, echoes, flip angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import NO_UNITS, Stack, Volume
from node.testing.phantoms import Grid, Triple

Floats = NDArray[np.float64]
Labels = NDArray[np.uint8]

HEAD = Grid((12, 96, 96), (8.0, 2.5, 2.5))
ORTHOGONAL: tuple[Triple, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Tissue:
    """What one tissue is; times in ms, diffusion in 10⁻³ mm²/s, at 1.5 T or thereabouts."""

    density: float
    t1: float
    t2: float
    along: float
    """Diffusion along the fibres, which run from right to left."""
    across: float
    uptake: tuple[float, float] = (0.0, inf)
    """Contrast: share of signal gained at most, and the time constant of its arrival, s."""
    washout: float = inf
    """Time constant of its leaving, s."""

    @property
    def adc(self) -> float:
        """Mean diffusivity, 10⁻⁶ mm²/s: a third of the tensor's trace."""
        return 1000 * (self.along + 2 * self.across) / 3


AIR = Tissue(0.0, 1000.0, 1.0, 1.0, 1.0)
TISSUES = (
    AIR,
    Tissue(0.25, 300.0, 60.0, 0.3, 0.3),  # scalp, its fat suppressed
    Tissue(0.03, 600.0, 10.0, 1.0, 1.0),  # bone
    Tissue(1.0, 4000.0, 1500.0, 3.0, 3.0),  # cerebrospinal fluid
    Tissue(0.85, 1200.0, 95.0, 0.85, 0.85),  # grey matter
    Tissue(0.7, 800.0, 75.0, 1.5, 0.4, (0.08, 20.0)),  # white matter
    Tissue(0.9, 1300.0, 130.0, 0.45, 0.45, (1.4, 60.0), 500.0),  # a lesion: cells dense, its vessels leaking
)
"""By label: 0 air … 6 lesion."""
FLUID, GREY, WHITE, LESION = 3, 4, 5, 6


def head_labels(grid: Grid = HEAD) -> Labels:
    """Which tissue each voxel is of: a number into TISSUES."""
    x, y, z = grid.coordinates()
    labels = np.zeros(grid.shape, np.uint8)
    for radii, label in (((76, 96, 92), 1), ((70, 90, 86), 2), ((66, 86, 82), FLUID), ((63, 83, 79), GREY)):
        labels[sum((p / r) ** 2 for p, r in zip((x, y, z), radii, strict=True)) < 1] = label
    angle = np.arctan2(y, x)
    folds = 1 + 0.05 * np.sin(11 * angle + z / 9) + 0.04 * np.sin(23 * angle - z / 5)
    labels[np.sqrt((x / 55) ** 2 + (y / 74) ** 2 + (z / 70) ** 2) < folds] = WHITE
    for side in (-1, 1):
        labels[((x - 12 * side) / 7) ** 2 + ((y - 4) / 28) ** 2 + ((z - 12) / 16) ** 2 < 1] = FLUID
    labels[(x + 34) ** 2 + (y - 26) ** 2 + (z - 10) ** 2 < 14**2] = LESION
    return labels


def of_tissues(labels: Labels, what: str) -> Floats:
    """One property of the tissues at each voxel: `t1`, `t2`, `adc`."""
    return np.array([getattr(tissue, what) for tissue in TISSUES], float)[labels]


def diffusion_stack(
    b_values: Sequence[float] = (0.0, 500.0, 1000.0),
    directions: Sequence[Triple] = ORTHOGONAL,
    *,
    grid: Grid = HEAD,
    noise: float = 0.0,
    scale: float = 20000.0,
    seed: int = 0,
) -> Stack:
    """S = S0 · exp(-b · gᵀDg): one volume for b 0, one per direction for every other b-value."""
    labels = head_labels(grid)
    along, across = of_tissues(labels, "along"), of_tissues(labels, "across")
    still = scale * of_tissues(labels, "density") * np.exp(-80 / of_tissues(labels, "t2"))
    told = [(b, g) for b in b_values for g in (directions if b else [None])]
    volumes = []
    for b, g in told:
        share = 0.0 if g is None else g[0] ** 2 / sum(v * v for v in g)
        facts = _weighting(b, g)
        volumes.append((still * np.exp(-b * 1e-3 * (across + (along - across) * share)), facts))
    return _stack(volumes, ("b_value", "gradient", "directionality"), grid, noise, seed)


def _weighting(b: float, gradient: Triple | None) -> dict[str, Any]:
    if gradient is None:
        return {"b_value": float(b), "directionality": "NONE", "echo_time": 80.0}
    direction = tuple(float(v) for v in gradient)
    return {"b_value": float(b), "directionality": "DIRECTIONAL", "echo_time": 80.0, "gradient": direction}


def dynamic_stack(
    times: Sequence[float] = (0.0, 60.0, 120.0, 240.0, 420.0),
    *,
    grid: Grid = HEAD,
    noise: float = 0.0,
    scale: float = 5000.0,
    seed: int = 0,
) -> Stack:
    """T1-weighted volumes at *times* (s); contrast is given after the first and arrives exponentially."""
    labels = head_labels(grid)
    still = scale * of_tissues(labels, "density") * (1 - np.exp(-500 / of_tissues(labels, "t1")))
    uptake = np.array([tissue.uptake for tissue in TISSUES])[labels]
    washout = of_tissues(labels, "washout")
    volumes = []
    for t in times:
        gain = uptake[..., 0] * (1 - np.exp(-t / uptake[..., 1])) * np.exp(-t / washout)
        volumes.append((still * (1 + gain), {"time": float(t), "time_from": "AcquisitionTime"}))
    return _stack(volumes, ("temporal_position",), grid, noise, seed)


def echo_stack(
    echo_times: Sequence[float] = (10.0, 20.0, 40.0, 60.0, 80.0, 120.0, 160.0, 240.0),
    *,
    echo: str = "spin",
    grid: Grid = HEAD,
    noise: float = 0.0,
    scale: float = 20000.0,
    seed: int = 0,
) -> Stack:
    """S = S0 · exp(-TE / T2) at *echo_times* (ms)."""
    labels = head_labels(grid)
    still, t2 = scale * of_tissues(labels, "density"), of_tissues(labels, "t2")
    volumes = [(still * np.exp(-te / t2), {"echo_time": float(te), "echo": echo}) for te in echo_times]
    return _stack(volumes, ("echo_time",), grid, noise, seed)


def flip_stack(
    angles: Sequence[float] = (3.0, 8.0, 15.0, 25.0),
    *,
    repetition_time: float = 15.0,
    grid: Grid = HEAD,
    noise: float = 0.0,
    scale: float = 200000.0,
    seed: int = 0,
) -> Stack:
    """Spoiled gradient echo at flip *angles* (degrees): S = M0 sin α (1 - E) / (1 - E cos α), E = exp(-TR / T1)."""
    labels = head_labels(grid)
    still, e = scale * of_tissues(labels, "density"), np.exp(-repetition_time / of_tissues(labels, "t1"))
    volumes = []
    for angle in angles:
        a = np.radians(angle)
        facts = {
            "flip_angle": float(angle),
            "repetition_time": repetition_time,
            "echo": "gradient",
            "spoiled": "yes",
        }
        volumes.append((still * np.sin(a) * (1 - e) / (1 - e * np.cos(a)), facts))
    return _stack(volumes, ("flip_angle",), grid, noise, seed)


def inversion_stack(
    inversion_times: Sequence[float] = (50.0, 150.0, 400.0, 800.0, 1500.0, 2500.0, 4500.0),
    *,
    grid: Grid = HEAD,
    noise: float = 0.0,
    scale: float = 20000.0,
    seed: int = 0,
) -> Stack:
    """Magnitude of S0 · (1 - 2 exp(-TI / T1)) at *inversion_times* (ms), fully recovered between."""
    labels = head_labels(grid)
    still, t1 = scale * of_tissues(labels, "density"), of_tissues(labels, "t1")
    volumes = [
        (
            np.abs(still * (1 - 2 * np.exp(-ti / t1))),
            {"inversion_time": float(ti), "repetition_time": 25000.0},
        )
        for ti in inversion_times
    ]
    return _stack(volumes, ("inversion_time",), grid, noise, seed)


def _stack(
    volumes: Sequence[tuple[Floats, dict[str, Any]]],
    by: tuple[str, ...],
    grid: Grid,
    noise: float,
    seed: int,
) -> Stack:
    """*volumes* with Rician noise (Gudbjartsson 1995): two channels of *noise* each, their magnitude."""
    rng = np.random.default_rng(seed)
    made = []
    for part, (array, facts) in enumerate(volumes):
        if noise:
            channels = rng.normal(0.0, noise, (2, *array.shape))
            array = np.hypot(array + channels[0], channels[1])  # noqa: PLW2901
        facts = {"modality": "MR", "part": part, **facts}  # noqa: PLW2901
        made.append(Volume(array.astype(np.float32), grid.affine, NO_UNITS, facts=facts))
    return Stack(tuple(made), by, {"modality": "MR"})
