"""Multi-frame objects: their frames are placed, scaled and described as single-frame images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from pydicom import Dataset, dcmread
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedPETImageStorage,
    JPEGLSLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
    SegmentationStorage,
)
from volume_phantoms import blank, enhanced, item, mapping, save, series, turned

from node.errors import Refused
from node.read import frames
from node.read.volume import load

ORDER = (2, 0, 3, 1)
"""Slice of the frames 1, 2, 3 and 4."""


def scrambled(angle: float = 0.0, sop: str = EnhancedCTImageStorage, kind: Any = np.int16) -> Dataset:
    """Four slices, 2 mm apart, whose frames are in another order; slice k holds 100 k + 0 … 29."""
    step = turned(angle)[:, 2] * 2
    stored = np.array([np.arange(30).reshape(5, 6) + 100 * k for k in ORDER], kind)
    ds = enhanced([np.array([-30, 12, 7]) + step * k for k in ORDER], stored, angle, sop)
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [
        item(RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU")
    ]
    return ds


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_frames_lie_where_highdicom_puts_them(tmp_path: Path, angle: float) -> None:
    """An enhanced CT whose frames are in no order has highdicom's places and values, voxel for voxel."""
    path = save(scrambled(angle), tmp_path / "a.dcm")
    volume = load([path]).value
    theirs = hd.Image.from_dataset(dcmread(path)).get_volume()
    for index in np.ndindex(volume.array.shape):
        at = np.linalg.inv(theirs.affine) @ volume.affine @ [*index, 1]
        rounded = tuple(np.round(at[:3]).astype(int))
        assert np.allclose(at[:3], rounded, atol=1e-4)
        assert theirs.array[rounded] == volume.array[index]
    assert volume.unit.value == "[hnsf'U]"


def test_a_frame_knows_its_number_and_its_header(tmp_path: Path) -> None:
    """Slice k comes with the header of its own frame, with pixels and functional groups gone, and its number."""
    loaded = load([save(scrambled(), tmp_path / "a.dcm")])
    assert loaded.frames == (2, 4, 1, 3)
    for k, header in enumerate(loaded.headers):
        assert [float(v) for v in header.ImagePositionPatient] == [-30, 12, 7 + 2 * k]
        assert header.PixelSpacing == [0.8, 0.6]
        assert header.SOPClassUID == EnhancedCTImageStorage
        assert not {"PixelData", "NumberOfFrames", "PerFrameFunctionalGroupsSequence"} & set(header.dir())
        assert "TransferSyntaxUID" in header.file_meta


def test_each_frame_has_its_own_scale(tmp_path: Path) -> None:
    """Frame k with slope k + 1 has its stored values times k + 1 (PS3.3 C.7.6.16.2.9)."""
    ds = enhanced([(0, 0, 2 * k) for k in range(3)], np.full((3, 5, 6), 10, np.int16))
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PixelValueTransformationSequence = [
            item(RescaleSlope=k + 1, RescaleIntercept=5, RescaleType="US")
        ]
    array = load([save(ds, tmp_path / "a.dcm")]).value.array
    assert array[:, 0, 0].tolist() == [15, 25, 35]


def test_macros_become_what_single_frame_images_say(tmp_path: Path) -> None:
    """Echo time, b-value, gradient, trigger time, frame type and acquisition moment stand at the top of a header."""
    ds = enhanced([(0, 0, 0)], np.zeros((1, 5, 6), np.int16))
    group = ds.PerFrameFunctionalGroupsSequence[0]
    group.MREchoSequence = [item(EffectiveEchoTime=0.1 + 0.2)]
    gradient = [item(DiffusionGradientOrientation=[0.0, 0.6, 0.8])]
    group.MRDiffusionSequence = [item(DiffusionBValue=800.0, DiffusionGradientDirectionSequence=gradient)]
    group.MRImageFrameTypeSequence = [item(FrameType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"])]
    group.CardiacSynchronizationSequence = [item(NominalCardiacTriggerDelayTime=120.0)]
    group.FrameContentSequence = [
        item(FrameAcquisitionDateTime="20260102030405.5+0100", TemporalPositionIndex=3, StackID="1")
    ]
    group.FrameAnatomySequence = [item(FrameLaterality="L")]
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.MRTimingAndRelatedParametersSequence = [item(RepetitionTime=2500, FlipAngle=90)]
    loaded = load([save(ds, tmp_path / "a.dcm")])
    header = loaded.headers[0]
    assert (str(header.EchoTime), header.DiffusionBValue, header.RepetitionTime) == ("0.3", 800, 2500)
    assert list(header.DiffusionGradientOrientation) == [0, 0.6, 0.8]
    assert list(header.ImageType) == ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    assert (header.AcquisitionDate, header.AcquisitionTime) == ("20260102", "030405.5")
    assert (float(header.TriggerTime), header.ImageLaterality) == (120, "L")
    facts = loaded.value.facts
    assert (facts["b_value"], facts["temporal_position"], facts["echo_time"]) == (800, "3", 0.3)


def test_frames_do_not_share_what_they_say(tmp_path: Path) -> None:
    """Lifting one frame's values leaves those of the others and of the object alone."""
    ds = enhanced([(0, 0, 2 * k) for k in range(3)], np.zeros((3, 5, 6), np.int16))
    ds.EchoTime = "99"
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.MREchoSequence = [item(EffectiveEchoTime=10.0 + k)]
    headers = load([save(ds, tmp_path / "a.dcm")]).headers
    assert [float(h.EchoTime) for h in headers] == [10, 11, 12]


def test_legacy_converted_images_say_what_they_said(tmp_path: Path) -> None:
    """Unassigned converted attributes are lifted; a vendor's private macro is not (PS3.3 C.7.6.16.2.25)."""
    ds = scrambled(sop=LegacyConvertedEnhancedMRImageStorage)
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.UnassignedPerFrameConvertedAttributesSequence = [item(EchoTime=30, SliceLocation=k)]
        private = group.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        private.add_new(0x0E, "SQ", [item(ImagePositionPatient=[9, 9, 9])])
    loaded = load([save(ds, tmp_path / "a.dcm")])
    assert loaded.value.facts["echo_time"] == 30
    assert [float(h.SliceLocation) for h in loaded.headers] == [1, 3, 0, 2]


def test_concatenated_and_mixed_objects_are_one_stack(tmp_path: Path) -> None:
    """Two multi-frame objects and a single-frame image of one stack become one volume, each voxel from its file."""
    paths = []
    for n in range(2):
        stored = np.array([np.full((5, 6), 10 * n + k) for k in range(2)], np.int16)
        ds = enhanced([(0, 0, 4 * n + 2 * k) for k in range(2)], stored)
        ds.InConcatenationNumber = n + 1
        paths.append(save(ds, tmp_path / f"{9 - n}.dcm"))
    single = blank(MRImageStorage, np.full((5, 6), 77, np.int16))
    single.ImageOrientationPatient, single.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.6]
    single.ImagePositionPatient = [0, 0, 8]
    loaded = load([*paths, save(single, tmp_path / "single.dcm")])
    assert loaded.value.array[:, 2, 2].tolist() == [0, 1, 10, 11, 77]
    assert loaded.frames == (1, 2, 1, 2, 0)
    assert len({h.SOPInstanceUID for h in loaded.headers}) == 3


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, DeflatedExplicitVRLittleEndian])
def test_compressed_frames_have_the_same_values(tmp_path: Path, syntax: str) -> None:
    """Frames compressed one by one, or a deflated object, decode to the values of the uncompressed one."""
    ds = scrambled(kind=np.uint16)
    plain = load([save(ds, tmp_path / "plain.dcm")]).value.array
    if syntax == DeflatedExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = syntax
    else:
        ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(load([save(ds, tmp_path / "packed.dcm")]).value.array, plain)


@pytest.mark.parametrize("syntax", ["", RLELossless, DeflatedExplicitVRLittleEndian])
def test_large_files_are_read_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    """A file above the limit leaves its pixels on disk until their turn, with the same values, however packed."""
    ds = scrambled(kind=np.uint16)
    if syntax == RLELossless:
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax:
        ds.file_meta.TransferSyntaxUID = syntax
    path = save(ds, tmp_path / "a.dcm")
    held = load([path])
    monkeypatch.setattr(frames, "WHOLE", 100)
    assert not any(tag in frames.sources([path])[0].dataset for tag in frames.PIXELS)
    assert np.array_equal(load([path]).value.array, held.value.array)
    singles = series(tmp_path)
    assert load(singles).value.array[3, 4, 5] == -1000 + 329


def test_a_volume_that_does_not_fit_is_missed_before_its_pixels(tmp_path: Path) -> None:
    """An object of 4 billion voxels and no pixels fails for want of memory, not for want of pixels."""
    ds = enhanced([(0, 0, 2 * k) for k in range(64)], np.zeros((64, 1, 1), np.int16))
    ds.Rows = ds.Columns = 65535
    del ds.PixelData
    with pytest.raises(MemoryError), _little_memory():
        load([save(ds, tmp_path / "a.dcm")])


class _little_memory:  # noqa: N801 (reads as what it does)
    """No more than 8 GiB for this process while it lasts, as a worker's limit is set."""

    def __enter__(self) -> None:
        import resource

        self.before = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, self.before[1]))

    def __exit__(self, *_: object) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, self.before)


def test_enhanced_pet_takes_its_unit_from_the_mapping(tmp_path: Path) -> None:
    """Enhanced PET has no Units; its Real World Value Mapping says Bq/ml, and without one it is refused."""
    ds = scrambled(sop=EnhancedPETImageStorage)
    with pytest.raises(Refused, match="Units is absent"):
        load([save(ds, tmp_path / "a.dcm")])
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping("Bq/ml", 3.0)]
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert (volume.unit.value, volume.facts["modality"], volume.array[1, 0, 1]) == ("Bq/ml", "PT", 303)


def test_tomosynthesis_is_a_volume_without_unit(tmp_path: Path) -> None:
    """Breast tomosynthesis with plane positions is a volume in no units, its values rescaled."""
    ds = scrambled(sop=BreastTomosynthesisImageStorage)
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleType = "US"
    volume = load([save(ds, tmp_path / "a.dcm")]).value
    assert (volume.unit.value, volume.facts["modality"], volume.array[1, 0, 1]) == ("1", "MG", -798)


def _distort(ds: Dataset) -> None:
    frame_type = item(VolumetricProperties="DISTORTED")
    ds.PerFrameFunctionalGroupsSequence[2].MRImageFrameTypeSequence = [frame_type]


REFUSALS = {
    "count": (lambda ds: setattr(ds, "NumberOfFrames", 5), "says 5 frames and describes 4"),
    "no groups": (
        lambda ds: delattr(ds, "PerFrameFunctionalGroupsSequence"),
        "where its frames lie is unknown",
    ),
    "no place": (
        lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[1], "PlanePositionSequence"),
        "frame 2 of image 1 has no usable ImagePositionPatient",
    ),
    "distorted": (_distort, "frame 3 of image 1 is spatially distorted"),
    "mask": (lambda ds: setattr(ds, "SOPClassUID", SegmentationStorage), "a segmentation is a mask"),
    "colour": (
        lambda ds: setattr(ds, "PhotometricInterpretation", "YBR_FULL"),
        "colours are no measured values",
    ),
    "short": (lambda ds: setattr(ds, "PixelData", ds.PixelData[:180]), "missing or cannot be decoded"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_stack_of_frames_is_refused_in_words(tmp_path: Path, name: str) -> None:
    """Frames without place, distorted, coloured, miscounted or missing are refused, naming the frame."""
    change, words = REFUSALS[name]
    ds = scrambled()
    change(ds)
    with pytest.raises(Refused) as refusal:
        load([save(ds, tmp_path / "a.dcm")])
    assert words in str(refusal.value)


def test_itk_reads_an_ordered_enhanced_mr_alike(tmp_path: Path) -> None:
    """Where frames are in slice order, SimpleITK's reader has the same values at the same places."""
    stored = np.arange(90, dtype=np.int16).reshape(3, 5, 6)
    path = save(enhanced([(1, 2, 3 + 2 * k) for k in range(3)], stored), tmp_path / "a.dcm")
    volume, image = load([path]).value, sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
    assert np.allclose(image.TransformIndexToPhysicalPoint((5, 4, 2)), (volume.affine @ [2, 4, 5, 1])[:3])
    assert volume.unit.value == "1"
