"""Stored → real-world values: every kind of pixel, table and mapping, and what has no unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    ParametricMapStorage,
)
from volume_phantoms import blank, code, enhanced, item, mapping, save, series

from node.errors import Refused
from node.operator import Volume
from node.read.volume import load

PLANE = np.arange(30).reshape(5, 6)


def lone(folder: Path, ds: Dataset) -> Volume:
    """One axial slice with the pixels of *ds*, read."""
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    return load([save(ds, folder / "a.dcm")]).value


@pytest.mark.parametrize(
    ("kind", "wide"),
    [(np.uint8, 0), (np.int8, 0), (np.uint16, 0), (np.int16, 0), (np.uint32, 1), (np.int32, 1)],
)
def test_every_integer_keeps_its_last_digit(tmp_path: Path, kind: Any, wide: int) -> None:
    """The lowest and highest stored values of each type survive; float64 is used where float32 would round."""
    ends = np.iinfo(kind)
    stored = np.array([[ends.min, ends.min + 1, ends.max - 1, ends.max]], kind)
    volume = lone(tmp_path, blank(MRImageStorage, stored))
    assert volume.array[0, 0].tolist() == [int(v) for v in stored[0]]
    assert volume.array.dtype == (np.float64 if wide else np.float32)


def test_unused_high_bits_do_not_count(tmp_path: Path) -> None:
    """12 bits stored in 16: what else stands in the upper four (old overlays) is no value (PS3.5 8.1.1)."""
    ds = blank(MRImageStorage, (PLANE | 0x5000).astype(np.uint16))
    ds.BitsStored, ds.HighBit = 12, 11
    assert np.array_equal(lone(tmp_path, ds).array[0], PLANE)


def test_monochrome1_values_are_as_measured(tmp_path: Path) -> None:
    """MONOCHROME1 is how to show values, not what they are."""
    ds = blank(MRImageStorage, PLANE.astype(np.uint16))
    ds.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(lone(tmp_path, ds).array[0], PLANE)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("words", [np.uint16, np.uint8])
def test_a_modality_lut_gives_its_entries(tmp_path: Path, syntax: str, words: Any) -> None:
    """Below the first and beyond the last entry the end ones count; 8- and 16-bit tables, any byte order (C.11.1.1)."""
    table = np.array([10, 20, 40, 80], words)
    lut = item(ModalityLUTType="HU")
    lut.add_new("LUTDescriptor", "SS", [4, -1, table.itemsize * 8])
    big = syntax == ExplicitVRBigEndian
    lut.add_new("LUTData", "OW", table.astype(table.dtype.newbyteorder(">" if big else "<")).tobytes())
    stored = np.array([[-3, -1, 0, 1, 2, 9]], ">i2" if big else "<i2")
    ds = blank(CTImageStorage, stored)
    ds.PixelData, ds.PixelRepresentation = stored.tobytes(), 1
    ds.ModalityLUTSequence = [lut]
    ds.file_meta.TransferSyntaxUID = syntax
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    path = tmp_path / "a.dcm"
    ds.save_as(
        path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big
    )
    volume = load([path]).value
    assert volume.array[0, 0].tolist() == [10, 10, 20, 40, 80, 80]
    assert volume.unit.value == "[hnsf'U]"
    lut.ModalityLUTType = "US"
    ds.save_as(
        path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big
    )
    assert load([path]).value.unit.value == "1"


def test_a_broken_modality_lut_is_refused(tmp_path: Path) -> None:
    """A table with fewer entries than it says gives no values."""
    ds = blank(MRImageStorage, PLANE.astype(np.uint16))
    ds.ModalityLUTSequence = [item()]
    with pytest.raises(Refused, match="no usable LUTDescriptor"):
        lone(tmp_path, ds)
    ds.ModalityLUTSequence[0].add_new("LUTDescriptor", "US", [30, 0, 16])
    ds.ModalityLUTSequence[0].add_new("LUTData", "OW", bytes(20))
    with pytest.raises(Refused, match="holds 20 of its 30 entries"):
        lone(tmp_path, ds)


def parametric(stored: np.ndarray, *mappings: Dataset) -> Dataset:
    """A parametric map of two slices."""
    ds = enhanced([(0, 0, 0), (0, 0, 2)], stored, sop=ParametricMapStorage)
    if mappings:
        ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = list(mappings)
    return ds


def quantity(value: str, meaning: str) -> list[Dataset]:
    """A Quantity Definition Sequence."""
    return [
        item(
            ValueType="CODE",
            ConceptNameCodeSequence=code("246205007", "SCT", "Quantity"),
            ConceptCodeSequence=code(value, "DCM", meaning),
        )
    ]


def floating(low: float, high: float, unit: str = "mm2/s", slope: float = 1.0) -> Dataset:
    """A mapping of floating point stored values."""
    return item(
        MeasurementUnitsCodeSequence=code(unit, "UCUM", unit),
        RealWorldValueSlope=slope,
        RealWorldValueIntercept=0.0,
        DoubleFloatRealWorldValueFirstValueMapped=low,
        DoubleFloatRealWorldValueLastValueMapped=high,
        QuantityDefinitionSequence=quantity("113041", "Apparent Diffusion Coefficient"),
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_parametric_map_is_a_volume_in_its_unit(tmp_path: Path, kind: Any) -> None:
    """Float and double float pixels, mapped, with quantity; outside the mapped range nothing is measured."""
    stored = np.linspace(0, 0.003, 60).reshape(2, 5, 6).astype(kind)
    stored[1, 0, 0], stored[1, 0, 1] = 7, np.nan
    path = save(parametric(stored, floating(0, 1, slope=2.0)), tmp_path / "a.dcm")
    volume = load([path]).value
    assert volume.unit.value == "mm2/s"
    assert volume.facts["quantity"].meaning == "Apparent Diffusion Coefficient"
    assert volume.array.dtype == kind
    assert np.allclose(volume.array[0], stored[0] * 2, rtol=1e-6)
    assert volume.valid is not None
    assert np.argwhere(~volume.valid).tolist() == [[1, 0, 0], [1, 0, 1]]
    assert np.isfinite(volume.array).all()


def test_highdicom_maps_a_parametric_map_alike(tmp_path: Path) -> None:
    """A parametric map that highdicom wrote has, by us, the values and grid highdicom reads back."""
    rng = np.random.default_rng(1)
    sources = [dcmread(p) for p in series(tmp_path, count=3)]
    for ds in sources:
        ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "1", "A^B", "", ""
        ds.StudyID, ds.AccessionNumber, ds.StudyDate, ds.StudyTime = "1", "1", "20260101", "000000"
        ds.ReferringPhysicianName, ds.PositionReferenceIndicator, ds.Modality = "", "", "CT"
        ds.Manufacturer, ds.SeriesNumber = "A", 1
    made = hd.pm.ParametricMap(
        sources,
        rng.random((3, 5, 6)).astype(np.float32),
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="A",
        manufacturer_model_name="B",
        software_versions="1",
        device_serial_number="1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label="1",
                lut_explanation="test",
                unit=hd.sr.CodedConcept("um2/s", "UCUM", "um2/s"),
                value_range=(0.0, 1.0),
                slope=1.0,  # highdicom 0.28.2 itself fails on any other with floating point pixels
                intercept=0.0,
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
    )
    path = tmp_path / "pm.dcm"
    made.save_as(path)
    volume, theirs = load([path]).value, hd.imread(path).get_volume()
    for index in np.ndindex(volume.array.shape):
        at = np.linalg.inv(theirs.affine) @ volume.affine @ [*index, 1]
        assert theirs.array[tuple(np.round(at[:3]).astype(int))] == pytest.approx(volume.array[index])
    assert volume.unit.value == "um2/s"


def test_mr_takes_its_mapping_by_line_and_by_table(tmp_path: Path) -> None:
    """An MR with one mapping is in its unit, frame by frame its own scale; a table maps each stored value."""
    stored = np.array([PLANE, PLANE], np.int16)
    ds = enhanced([(0, 0, 0), (0, 0, 2)], stored)
    table = item(
        MeasurementUnitsCodeSequence=code("um2/s", "UCUM", "um2/s"),
        RealWorldValueLUTData=[float(v) ** 2 for v in range(21)],
    )
    table.add_new("RealWorldValueFirstValueMapped", "SS", 0)
    table.add_new("RealWorldValueLastValueMapped", "SS", 20)
    for group, one in zip(
        ds.PerFrameFunctionalGroupsSequence, (mapping("um2/s", 0.5, 1), table), strict=True
    ):
        group.RealWorldValueMappingSequence = [one]
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert volume.unit.value == "um2/s"
    assert np.allclose(volume.array[0], PLANE * 0.5 + 1)
    assert volume.valid is not None
    assert np.array_equal(volume.valid[1], PLANE <= 20)
    assert np.array_equal(volume.array[1][PLANE <= 20], (PLANE**2)[PLANE <= 20])


def test_several_mappings_are_a_choice_nobody_makes(tmp_path: Path) -> None:
    """Two mappings: MR stays in no units, rescaled; a parametric map is refused."""
    both = [mapping("um2/s", 0.5), mapping("ms", 3.0)]
    ds = enhanced([(0, 0, 0), (0, 0, 2)], np.array([PLANE, PLANE], np.int16))
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = both
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert (volume.unit.value, volume.array[0, 0, 3]) == ("1", 3)
    with pytest.raises(Refused, match="no single RealWorldValueMappingSequence"):
        load([save(parametric(np.array([PLANE, PLANE], np.int16), *both), tmp_path / "b.dcm")])


def test_frames_in_different_units_are_refused(tmp_path: Path) -> None:
    """One frame in um2/s and one in ms are no volume."""
    ds = enhanced([(0, 0, 0), (0, 0, 2)], np.array([PLANE, PLANE], np.int16))
    for group, unit in zip(ds.PerFrameFunctionalGroupsSequence, ("um2/s", "ms"), strict=True):
        group.RealWorldValueMappingSequence = [mapping(unit, 1.0)]
    with pytest.raises(Refused, match=r"different quantities \(values in ms, values in um2/s\)"):
        load([save(ds, tmp_path / "a.dcm")])


@pytest.mark.parametrize(
    ("kind", "unit", "value"),
    [("HU", "[hnsf'U]", 3), ("US", "ml/s", 9), ("MGML", "mg/ml", 3), ("ODD", "ml/s", 9)],
)
def test_hounsfield_units_come_before_a_mapping(tmp_path: Path, kind: str, unit: str, value: float) -> None:
    """A CT's stated Rescale Type holds; where it is unspecified (US) or unknown, the mapping says the unit."""
    ds = enhanced([(0, 0, 0), (0, 0, 2)], np.array([PLANE, PLANE], np.int16), sop=EnhancedCTImageStorage)
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = [item(RescaleSlope=1, RescaleIntercept=0, RescaleType=kind)]
    shared.RealWorldValueMappingSequence = [mapping("ml/s", 3.0)]
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert (volume.unit.value, volume.array[0, 0, 3]) == (unit, value)


def test_bounds_written_in_the_other_signedness_still_bound(tmp_path: Path) -> None:
    """First Value Mapped 64536 (US) of signed pixels is -1000."""
    one = mapping("um2/s", 1.0)
    one.add_new("RealWorldValueFirstValueMapped", "US", 64536)
    stored = np.array([[-1001, -1000, 0, 30000, 30001]], np.int16)
    ds = blank(MRImageStorage, stored)
    ds.RealWorldValueMappingSequence = [one]
    volume = lone(tmp_path, ds)
    assert volume.valid is not None
    assert volume.valid[0, 0].tolist() == [False, True, True, True, False]


def test_float_padding_is_not_valid(tmp_path: Path) -> None:
    """Float Pixel Padding Value, and its range, mark what was not measured; -inf counts as no number."""
    stored = np.zeros((2, 5, 6), np.float32)
    stored[0, 0, :3] = -100, -150, -200
    stored[1, 0, 0] = -np.inf
    ds = parametric(stored, floating(-1e9, 1e9))
    ds.FloatPixelPaddingValue, ds.FloatPixelPaddingRangeLimit = -100.0, -150.0
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert volume.valid is not None
    assert np.argwhere(~volume.valid).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_a_slope_is_applied_in_double_precision(tmp_path: Path) -> None:
    """Stored 12345 with slope 0.1 and intercept -1234.5 gives 0 to 1e-12, not a float32 difference."""
    ds = blank(MRImageStorage, np.array([[12345, 12346]], np.int16))
    ds.RescaleSlope, ds.RescaleIntercept = 0.1, -1234.5
    assert np.allclose(lone(tmp_path, ds).array[0, 0], [0, 0.1], atol=1e-8)
