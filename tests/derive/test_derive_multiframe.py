"""Results of enhanced and other multi-frame sources: classic images, segments and reports that name frames."""

from pathlib import Path

import highdicom as hd
import numpy as np
import peers
import pytest
from derive_material import HU, LUNG, affine, complaints, enhanced, flattened, job, mask, numbers, volume
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage

from node.derive.classic import single_frame
from node.derive.sources import Sources
from node.derive.standard import CT, MR, PT
from node.derive.write import write
from node.model import Code
from node.operator import Mask, Volume
from node.read.volume import load

SHAPE = (6, 8, 7)
PLACE = affine((2.0, 0.7, 0.5), 0.35)


def sources(sop_class: str = EnhancedMRImageStorage, modality: str = "MR") -> Sources:
    """The frames of one enhanced object."""
    return Sources(*flattened(enhanced(*SHAPE, PLACE, sop_class, modality)))


def pairs(place: np.ndarray, array: np.ndarray, unit: Code) -> Volume:
    """Every two slices averaged."""
    made = place.copy()
    made[:3, 3] += made[:3, 0] / 2
    made[:3, 0] *= 2
    mean = ((array[0::2] + array[1::2]) / 2).astype(np.float32)
    return Volume(mean, made, unit, facts={"slice_thickness": 4.0})


def patient(array: np.ndarray, place: np.ndarray) -> set[tuple[float, ...]]:
    """Patient coordinates of all voxels that are set, to 0.01 mm."""
    return {
        tuple(float(v) + 0.0 for v in np.round((place @ [*index, 1])[:3], 2)) for index in np.argwhere(array)
    }


def first(tmp_path: Path, results: dict, given: Sources) -> Dataset:
    """The first object of the only output."""
    products = write(results, job(*results), given, tmp_path)
    return dcmread(tmp_path / products[0].path)


@pytest.mark.parametrize(
    ("sop_class", "modality", "classic"),
    [(EnhancedCTImageStorage, "CT", CT), (EnhancedMRImageStorage, "MR", MR)],
)
def test_derived_images_are_classic_and_name_frames(
    tmp_path: Path, sop_class: str, modality: str, classic: str
) -> None:
    """An enhanced source gives images of the classic class that refer to the object once, by frame."""
    unit = HU if modality == "CT" else Code("1", "UCUM", "no units")
    made = first(
        tmp_path, {"thick": pairs(PLACE, volume(SHAPE, PLACE).array, unit)}, sources(sop_class, modality)
    )
    assert made.SOPClassUID == classic
    (item,) = made.SourceImageSequence
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (sop_class, "1.2.3.4.1")
    assert list(item.ReferencedFrameNumber) == [1, 2]
    assert complaints(made.filename) == set()
    assert "PerFrameFunctionalGroupsSequence" not in made
    assert "NumberOfFrames" not in made


def test_pulse_sequence_is_said_in_classic_words(tmp_path: Path) -> None:
    """A spoiled gradient-echo EPI with partial Fourier is GR and EP, SP, PFP and an echo time of 2.5 ms (C.8.3.1)."""
    made = first(tmp_path, {"thick": volume(SHAPE, PLACE, Code("1", "UCUM", "1"))}, sources())
    assert list(made.ScanningSequence) == ["GR", "EP"]
    assert (made.SequenceVariant, made.ScanOptions, made.EchoTime) == ("SP", "PFP", 2.5)
    assert (made.AcquisitionDate, made.AcquisitionTime) == ("20251230", "101300")
    assert made.EchoTrainLength is None  # not stated: type 2, empty


def test_ct_exposure_is_said_in_classic_words(tmp_path: Path) -> None:
    """Tube current and exposure in mA and mAs become whole numbers; what differs between frames is dropped."""
    given = sources(EnhancedCTImageStorage, "CT")
    own = first(tmp_path / "own", {"thick": volume(SHAPE, PLACE)}, given)
    assert (own.XRayTubeCurrent, own.Exposure, own.KVP) == (200, 100, 120)
    merged = first(tmp_path / "merged", {"thick": pairs(PLACE, volume(SHAPE, PLACE).array, HU)}, given)
    assert "XRayTubeCurrent" not in merged
    assert merged.Exposure == 100


def test_nothing_is_concluded_from_silence() -> None:
    """A header that names no pulse sequence gets no Scanning Sequence, one without decay facts no correction."""
    silent = Dataset()
    assert "ScanningSequence" not in single_frame(silent, MR)
    assert "SequenceVariant" not in single_frame(silent, MR)
    assert "DecayCorrection" not in single_frame(silent, PT)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"DecayCorrected": "NO"}, "NONE"),
        ({"DecayCorrected": "YES", "DecayCorrectionDateTime": "20260101100000"}, "START"),
        ({"DecayCorrected": "YES", "DecayCorrectionDateTime": "20260101090000"}, "ADMIN"),
        ({"DecayCorrected": "YES", "DecayCorrectionDateTime": "20260101080000"}, None),
        ({"DecayCorrected": "YES"}, None),
    ],
)
def test_decay_correction_is_told_by_its_moment(changed: dict, expected: str | None) -> None:
    """Corrected to the start of the scan or of the injection, or neither: only the first two have a word."""
    header = Dataset()
    header.SOPClassUID = EnhancedPETImageStorage
    header.AcquisitionDateTime = "20260101100000"
    given = Dataset()
    given.RadiopharmaceuticalStartDateTime = "20260101090000"
    header.RadiopharmaceuticalInformationSequence = [given]
    for keyword, value in changed.items():
        setattr(header, keyword, value)
    assert single_frame(header, PT).get("DecayCorrection") == expected
    assert "DecayCorrection" not in header  # the source is left as it is


def test_segment_frames_name_source_frames(tmp_path: Path) -> None:
    """On a multi-frame source each segment frame refers to the frame it was drawn on, and lies there."""
    made = first(tmp_path, {"body": mask(SHAPE, PLACE)}, sources())
    seg = hd.seg.segread(made.filename)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        position = [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        assert item.ReferencedSOPInstanceUID == "1.2.3.4.1"
        expected = PLACE[:3, 3] + (int(item.ReferencedFrameNumber) - 1) * PLACE[:3, 0]
        assert np.allclose(position, expected, atol=1e-4)
    (series,) = seg.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 1
    assert complaints(made.filename) == set()
    back = seg.get_volume(combine_segments=True)
    assert patient(back.array, back.affine) == patient(mask(SHAPE, PLACE).array, PLACE)


def test_report_names_object_once_and_frames_of_a_region(tmp_path: Path) -> None:
    """A region that left as no segment is reported on the frames it touches; without region, on the object."""
    given = sources()
    region = mask(SHAPE, PLACE)
    made = first(tmp_path, {"stats": [*numbers(region), *numbers(None)]}, given)
    report = hd.sr.srread(made.filename)
    by_region, whole = report.content.get_image_measurement_groups()
    (image,) = by_region.source_images
    assert list(image.referenced_frame_numbers) == [2, 3]
    assert len(whole.source_images) == 1
    (evidence,) = report.get_evidence()
    assert evidence[2] == "1.2.3.4.1"
    assert complaints(made.filename) == set()
    assert peers.pixelmed_sr(Path(made.filename)) == []


def test_parts_that_came_together_are_named(tmp_path: Path) -> None:
    """A result of two stacks refers to the slices of both that lie there; its header is the first one's."""
    from derive_material import ct_headers

    one = ct_headers(*SHAPE, PLACE)
    two = ct_headers(*SHAPE, PLACE, SeriesDescription="Second", Exposure="7")
    for k, header in enumerate(two):
        header.SOPInstanceUID = f"1.2.3.9.{k + 1}"
    given = Sources(tuple(one), others=tuple(two))
    products = write({"thick": volume(SHAPE, PLACE), "body": mask(SHAPE, PLACE), "stats": numbers(None)},
                     job("thick", "body", "stats"), given, tmp_path)  # fmt: skip
    image = dcmread(tmp_path / products[2].path)
    named = {item.ReferencedSOPInstanceUID for item in image.SourceImageSequence}
    assert named == {"1.2.3.4.3", "1.2.3.9.3"}
    assert image.Exposure == 100
    seg = dcmread(tmp_path / next(p.path for p in products if p.kind == "segmentation"))
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 12
    report = hd.sr.srread(tmp_path / products[-1].path)
    assert {uid for _, _, uid, _ in report.get_evidence()} >= {"1.2.3.9.1", "1.2.3.4.1"}


def test_enhanced_pet_gives_classic_pet(tmp_path: Path) -> None:
    """Corrections, reference time and decay correction of an enhanced PET stand in classic words; dciodvfy agrees."""
    given = sources(EnhancedPETImageStorage, "PT")
    isotope = Dataset()
    isotope.RadiopharmaceuticalStartDateTime = "20251230090000"
    isotope.RadionuclideCodeSequence = []
    for k, header in enumerate(given.headers):
        header.CountsSource, header.CollimatorType = "EMISSION", "NONE"
        header.DecayCorrected, header.DecayCorrectionDateTime = "YES", "20251230101300"
        header.AttenuationCorrected, header.ScatterCorrected, header.RandomsCorrected = "YES", "YES", "NO"
        header.DecayFactor = "1.1"
        header.FrameReferenceDateTime = f"2025123010130{k}"
        header.FrameAcquisitionDuration = 60000.0
        header.RadiopharmaceuticalInformationSequence = [isotope]
        header.PatientOrientationCodeSequence = header.PatientGantryRelationshipCodeSequence = []
        header.pop("PatientPosition")  # which excludes the former
    made = first(tmp_path, {"thick": volume(SHAPE, PLACE, Code("Bq/ml", "UCUM", "Bq/ml"))}, given)
    assert made.SOPClassUID == PT
    assert list(made.CorrectedImage) == ["DECY", "ATTN", "SCAT"]
    assert (made.DecayCorrection, made.ActualFrameDuration, made.Units) == ("START", 60000, "BQML")
    assert made.FrameReferenceTime == 60000  # from the series' start at 10:12:00 to 10:13:00
    assert complaints(made.filename) == set()


@pytest.mark.parametrize("folder", ["CT/enhanced-ct"])
def test_real_enhanced_sources_overlay(tmp_path: Path, folder: str) -> None:
    """What our reader gives of a real enhanced object and what we write of it: the same places, no new defects."""
    paths = sorted(peers.need_samples(*folder.split("/")).iterdir())
    loaded = load(paths)
    value = loaded.value
    bright = Mask(value.array > np.percentile(value.array, 80), value.affine, "Bright", *LUNG)
    products = write({"thick": value, "body": bright, "stats": numbers(bright)}, job("thick", "body", "stats"),
                     Sources(loaded.headers, loaded.frames, value), tmp_path)  # fmt: skip
    known = complaints(paths[0])
    for product in products:
        assert complaints(tmp_path / product.path) <= known
    images = [tmp_path / product.path for product in products if product.kind == "image"]
    again = load(images).value
    assert again.same_grid(value)
    assert np.abs(again.array - value.array).max() <= max(1.0, float(np.ptp(value.array)) / 30000)
    back = hd.seg.segread(tmp_path / next(p.path for p in products if p.kind == "segmentation"))
    found = back.get_volume(combine_segments=True)
    assert patient(found.array, found.affine) == patient(bright.array, bright.affine)
