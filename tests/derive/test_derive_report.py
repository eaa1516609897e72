"""Reports on what has no place in space: pictures, cines, recordings, and several parts; all pass PixelMed."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import pytest
from derive_material import affine, complaints, ct_headers, job, numbers
from peers import pixelmed_sr
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    TwelveLeadECGWaveformStorage,
    UltrasoundMultiFrameImageStorage,
)

from node.derive.sources import Sources
from node.derive.write import write

_NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None, "KVP": None}


def headers(sop_class: str, modality: str, count: int, **changed: object) -> tuple[Dataset, ...]:
    """Headers that state no plane."""
    place = affine((2.0, 0.7, 0.5))
    return tuple(
        ct_headers(count, 8, 7, place, SOPClassUID=sop_class, Modality=modality, **_NO_PLACE, **changed)
    )


def written(tmp_path: Path, sources: Sources) -> Path:
    """The one report of numbers without region; dciodvfy and PixelMed have found nothing wrong with it."""
    (product,) = write({"stats": numbers(None)}, job("stats"), sources, tmp_path)
    path = tmp_path / product.path
    assert complaints(path) == set()
    assert pixelmed_sr(path) == []
    return path


def report(tmp_path: Path, sources: Sources) -> hd.sr.Comprehensive3DSR:
    """The same, as highdicom reads it."""
    return hd.sr.srread(written(tmp_path, sources))


def test_a_radiograph_is_the_source_of_its_numbers(tmp_path: Path) -> None:
    """Numbers of a single projection refer to that image, with no image library that would need a plane."""
    made = report(tmp_path, Sources(headers(DigitalXRayImageStorageForPresentation, "DX", 1)))
    (group,) = made.content.get_image_measurement_groups()
    assert [i.referenced_sop_instance_uid for i in group.source_images] == ["1.2.3.4.1"]
    assert group.source_images[0].referenced_frame_numbers is None


@pytest.mark.parametrize(("total", "expected"), [(4, None), (9, [2, 3, 4, 5])])
def test_a_cine_is_named_once_with_its_frames(tmp_path: Path, total: int, expected: list[int] | None) -> None:
    """All frames of an object are the object; some of them are named by number."""
    frames = headers(
        UltrasoundMultiFrameImageStorage, "US", 4, SOPInstanceUID="1.2.3.4.1", NumberOfFrames=total
    )
    numbers_ = (1, 2, 3, 4) if expected is None else (2, 3, 4, 5)
    made = report(tmp_path, Sources(frames, numbers_))
    (group,) = made.content.get_image_measurement_groups()
    (image,) = group.source_images
    assert image.referenced_frame_numbers == expected
    assert len(made.get_evidence()) == 1


def test_one_frame_of_a_cine_is_named(tmp_path: Path) -> None:
    """A number of a single frame of an object with several refers to that frame."""
    frame = headers(UltrasoundMultiFrameImageStorage, "US", 1, SOPInstanceUID="1.2.3.4.1", NumberOfFrames=9)
    made = report(tmp_path, Sources(frame, (4,)))
    (group,) = made.content.get_image_measurement_groups()
    assert group.source_images[0].referenced_frame_numbers == [4]


def test_the_image_library_says_once_what_images_share(tmp_path: Path) -> None:
    """Spacing and orientation stand in the group (TID 1600), only the position in each image's entry (TID 1601)."""
    place = affine((2.0, 0.7, 0.5))
    made = dcmread(written(tmp_path, Sources(tuple(ct_headers(3, 8, 7, place)))))
    (found,) = [i for i in made.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028"]
    (group,) = found.ContentSequence
    shared = {
        i.ConceptNameCodeSequence[0].CodeMeaning: float(i.MeasuredValueSequence[0].NumericValue)
        for i in group.ContentSequence
        if i.ValueType == "NUM"
    }
    assert shared["Vertical Pixel Spacing"] == 0.7
    assert shared["Horizontal Pixel Spacing"] == 0.5
    assert shared["Image Orientation (Patient) Column Y"] == 1
    assert (shared["Pixel Data Rows"], shared["Pixel Data Columns"]) == (8, 7)
    entries = [i for i in group.ContentSequence if i.ValueType == "IMAGE"]
    positions = [
        [float(n.MeasuredValueSequence[0].NumericValue) for n in entry.ContentSequence] for entry in entries
    ]
    assert positions == [[-20, -30, 100], [-20, -30, 102], [-20, -30, 104]]
    uids = [entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for entry in entries]
    assert uids == ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"]


def test_a_recording_is_referred_to_as_waveform(tmp_path: Path) -> None:
    """Numbers of an ECG contain a WAVEFORM item (TID 1501 row 10f), not an image."""
    gone = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"))
    made = dcmread(written(tmp_path, Sources(headers(TwelveLeadECGWaveformStorage, "ECG", 1, **gone))))
    (measurements,) = [i for i in made.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    items = {i.ValueType: i for i in measurements.ContentSequence[0].ContentSequence}
    assert "IMAGE" not in items
    (reference,) = items["WAVEFORM"].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == "1.2.3.4.1"
    assert reference.ReferencedSOPClassUID == TwelveLeadECGWaveformStorage


def test_a_document_is_evidence_only(tmp_path: Path) -> None:
    """Numbers read from a PDF list it as evidence; no template has a place to point at it."""
    gone = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"))
    made = report(tmp_path, Sources(headers(EncapsulatedPDFStorage, "DOC", 1, **gone)))
    assert [uid for _, _, uid, _ in made.get_evidence()] == ["1.2.3.4.1"]


def test_several_parts_are_all_named(tmp_path: Path) -> None:
    """Numbers of two pictures that came together refer to both, each once."""
    one = headers(DigitalXRayImageStorageForPresentation, "DX", 2)
    made = report(tmp_path, Sources(one[:1], others=one[1:]))
    (group,) = made.content.get_image_measurement_groups()
    assert [i.referenced_sop_instance_uid for i in group.source_images] == ["1.2.3.4.1", "1.2.3.4.2"]


def test_the_whole_number_stands_beside_the_legible_one(tmp_path: Path) -> None:
    """Numeric Value is for people, Floating Point Value for what reads on (PS3.3 C.18.1)."""
    (number,) = [replace(one, value=1 / 3) for one in numbers(None)][:1]
    sources = Sources(headers(DigitalXRayImageStorageForPresentation, "DX", 1))
    (product,) = write({"stats": [number]}, job("stats"), sources, tmp_path)
    path = tmp_path / product.path
    assert complaints(path) == set()
    assert pixelmed_sr(path) == []
    found: list[Dataset] = []
    dcmread(path).walk(lambda _, e: found.extend(e.value) if e.keyword == "MeasuredValueSequence" else None)
    ours = [
        item for item in found if item.NumericValue == "0.333333" or item.get("FloatingPointValue") == 1 / 3
    ]
    assert [(str(item.NumericValue), item.FloatingPointValue) for item in ours] == [("0.333333", 1 / 3)]
