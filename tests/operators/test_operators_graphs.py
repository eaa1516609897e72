"""Graphs: what is drawn is there, in its colour, and the same every time."""

import numpy as np

from node.operators.graphs import COLOURS, HEIGHT, WIDTH, Line, curves, histogram


def _has(pixels, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels.astype(int) - wanted).max(axis=-1) < 12).any())


def test_each_curve_is_drawn_in_its_colour_and_the_same_every_time():
    """Two curves give a picture that has both colours, not a third, and equal bytes at the second time."""
    x = np.arange(5.0)
    lines = [Line("left", x, x**2), Line("right", x, 16 - x**2)]
    first, again = (curves("Activity", "time, s", "counts/s", lines) for _ in range(2))
    assert first.array.shape == (1, HEIGHT, WIDTH, 3)
    assert _has(first.array, COLOURS[0])
    assert _has(first.array, COLOURS[1])
    assert not _has(first.array, COLOURS[3])
    assert np.array_equal(first.array, again.array)


def test_a_histogram_stands_on_its_edges():
    """A histogram with all of its mass left of the middle leaves the upper right of the picture empty."""
    edges = np.linspace(0, 10, 11)
    counts = np.array([0, 9, 0, 0, 0, 0, 0, 0, 0, 0])
    made = histogram("Values", "HU", "voxels", [Line("", edges, counts)], [(5.0, "mean")]).array[0]
    left, right = made[60:300, :400], made[60:300, 640:980]
    assert _has(left, COLOURS[0])
    assert not _has(right, COLOURS[0])
