"""T1 of inversion recovery whose signal lost its sign: a search over T1 only, everything else being linear.

Barral 2010 (doi:10.1002/mrm.22497): S(TI) = a + b exp(-TI / T1) has, for each T1, its best a and b in closed form,
so that one parameter is left to search; magnitudes are tried with all signals before the minimum reversed, and with
the minimum itself reversed as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_TIMES = 4
"""Three parameters, and one more time to tell the sign."""
_SHORTEST = 10.0  # ms
_PER_DECADE = 60
"""Places of the search; what lies between two of them is found by golden section."""
_AT_ONCE = 4096
"""Voxels tried at once: 10 MB."""
_GOLDEN = (np.sqrt(5) - 1) / 2
_ROUNDS = 30
"""Each narrows the bracket to 0.62 of itself: below 10⁻⁶ of T1."""


def inversion_times(times: Floats, signals: Floats, longest: float) -> Floats:
    """T1 in ms of each column of *signals*, magnitudes (times, voxels); 0 where it is not below *longest*."""
    lowest = signals.argmin(axis=0)
    order = np.arange(len(times))[:, None]
    best, quality = np.zeros(signals.shape[1]), np.full(signals.shape[1], -np.inf)
    for last in (lowest - 1, lowest):
        signed = np.where(order <= last, -signals, signals)
        away = signed - signed.mean(axis=0)
        found, explained, total = *_search(times, away, longest), (away**2).sum(axis=0)
        share = np.divide(explained, total, out=np.zeros_like(total), where=total > 0)
        better = share > quality
        best[better], quality[better] = found[better], share[better]
    return best


def _search(times: Floats, away: Floats, longest: float) -> tuple[Floats, Floats]:
    """T1 that explains most of the squares of *away*, and how much."""
    decades = np.log10(longest / _SHORTEST)
    places = _SHORTEST * 10 ** np.linspace(0, decades, max(3, int(decades * _PER_DECADE)))
    shapes = _shape(times[:, None], places[None, :])
    at = np.concatenate([
        (np.einsum("tp,tv->pv", shapes, away[:, v : v + _AT_ONCE]) ** 2).argmax(axis=0)  # no BLAS, as in diffusion
        for v in range(0, away.shape[1], _AT_ONCE)
    ])  # fmt: skip
    inner = (at > 0) & (at < len(places) - 1)
    low, high = places[np.maximum(at - 1, 0)], places[np.minimum(at + 1, len(places) - 1)]
    for _ in range(_ROUNDS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        lefter = _explained(times, away, left) > _explained(times, away, right)
        low, high = np.where(lefter, low, left), np.where(lefter, right, high)
    found = (low + high) / 2
    return np.where(inner, found, 0.0), _explained(times, away, found)


def _explained(times: Floats, away: Floats, t1: Floats) -> Floats:
    explained: Floats = (_shape(times[:, None], t1[None, :]) * away).sum(axis=0) ** 2
    return explained


def _shape(times: Floats, t1: Floats) -> Floats:
    """exp(-TI / T1) less its mean, of length 1, over the first axis."""
    curve = np.exp(-times / t1)
    curve = curve - curve.mean(axis=0)
    length = np.linalg.norm(curve, axis=0)
    shape: Floats = np.divide(curve, length, out=np.zeros_like(curve), where=length > 0)
    return shape
