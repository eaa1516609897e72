"""Philips' private scaling: undone where volumes of one series were scaled differently, and only there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage
from volume_phantoms import blank, enhanced, item, mapping, save

from node.operator import Stack
from node.read.series import parts

TRUTH = (100.0, 150.0, 120.0)
"""The scanner's own values of three phases, in each voxel."""
Numbers = Sequence[float]


def private(ds: Dataset, scale: float, shift: float = 0.0) -> None:
    """Scale Slope and Intercept as Philips writes them."""
    block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0E, "FL", scale)
    block.add_new(0x0D, "FL", shift)


def stored(truth: float, scale: float, shift: float) -> np.ndarray[Any, Any]:
    """SV = FP · SS + SI."""
    return np.full((5, 6), round(truth * scale + shift), np.int16)


def classic(
    folder: Path, scales: Numbers, slopes: Numbers, shift: float = 0.0, told: bool = True
) -> list[Path]:
    """Three phases of two slices, each phase with its own scaling."""
    paths = []
    for n, (truth, scale, slope) in enumerate(zip(TRUTH, scales, slopes, strict=True)):
        for k in range(2):
            ds = blank(MRImageStorage, stored(truth, scale, shift))
            ds.Modality, ds.Manufacturer = "MR", "Philips Medical Systems"
            ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2 * k]
            ds.PixelSpacing, ds.SliceThickness = [1, 1], 2
            ds.TemporalPositionIdentifier, ds.InstanceNumber = n + 1, 2 * n + k + 1
            ds.RescaleSlope, ds.RescaleIntercept = slope, -5
            if told:
                private(ds, scale, shift)
            paths.append(save(ds, folder / f"{n}{k}.dcm"))
    return paths


def load(paths: list[Path]) -> Stack:
    """The one stack."""
    (part,) = parts("Stack", paths, (), "refuse")
    return part.load().value


def test_phases_that_were_scaled_differently_are_made_comparable(tmp_path: Path) -> None:
    """Other slopes per phase, with intercepts: the stack holds the scanner's own values (Chenevert 2014)."""
    stack = load(classic(tmp_path, (10.0, 4.0, 20.0), (0.3, 0.5, 1.0), shift=7.0))
    for volume, truth in zip(stack.volumes, TRUTH, strict=True):
        assert volume.array == pytest.approx(np.full((2, 5, 6), truth), rel=1e-5)
        assert volume.facts["scaling"].startswith("floating point values")


def test_one_scaling_leaves_the_values_as_shown(tmp_path: Path) -> None:
    """Where all were scaled alike the values are those a viewer shows."""
    stack = load(classic(tmp_path, (10.0, 10.0, 10.0), (0.5, 0.5, 0.5)))
    assert [float(v.array[0, 0, 0]) for v in stack.volumes] == [t * 10 * 0.5 - 5 for t in TRUTH]
    assert "scaling" not in stack.facts


def test_what_cannot_be_made_comparable_says_so(tmp_path: Path) -> None:
    """Different rescale and no private scaling: unknown; the same rescale is nothing to complain of."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert (
        load(classic(tmp_path / "a", (10, 4, 20), (0.3, 0.5, 1.0), told=False)).facts["scaling"] == "unknown"
    )
    assert "scaling" not in load(classic(tmp_path / "b", (10, 10, 10), (0.3,) * 3, told=False)).facts


def test_frames_of_an_enhanced_object_are_scaled_each(tmp_path: Path) -> None:
    """In an enhanced object the scaling stands in a private macro of each frame."""
    frames = [(n, k) for k in range(2) for n in range(3)]
    scales = (10.0, 4.0, 20.0)
    pixels = np.stack([stored(TRUTH[n], scales[n], 0) for n, _ in frames])
    ds = enhanced([(0, 0, 2 * k) for _, k in frames], pixels)
    ds.Manufacturer = "Philips Medical Systems"
    for (n, _), group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        group.FrameContentSequence = [item(TemporalPositionIndex=n + 1)]
        group.PixelValueTransformationSequence = [
            item(RescaleSlope=1 / (n + 1), RescaleIntercept=0, RescaleType="US")
        ]
        own = Dataset()
        private(own, scales[n])
        group.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
        group.add_new(0x2005140F, "SQ", [own])
    stack = load([save(ds, tmp_path / "e.dcm")])
    for volume, truth in zip(stack.volumes, TRUTH, strict=True):
        assert volume.array == pytest.approx(np.full((2, 5, 6), truth), rel=1e-5)


@pytest.mark.parametrize("meaning", ["no units", "Unity"])
def test_a_mapping_to_no_units_is_undone_too(tmp_path: Path, meaning: str) -> None:
    """Where a mapping to (1, UCUM) made the values that were read, it is what is undone, whatever it is called."""
    paths = classic(tmp_path, (10.0, 4.0, 20.0), (0.3, 0.5, 1.0), shift=7.0)
    for path in paths:
        ds = dcmread(path)
        to = mapping("1", 3 * float(ds.RescaleSlope), 2.0)
        to.MeasurementUnitsCodeSequence[0].CodeMeaning = meaning
        ds.RealWorldValueMappingSequence = [to]
        save(ds, path)
    stack = load(paths)
    for volume, truth in zip(stack.volumes, TRUTH, strict=True):
        assert volume.array == pytest.approx(np.full((2, 5, 6), truth), rel=1e-5)
