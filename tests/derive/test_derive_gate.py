"""What the gate finds in pixels, waveforms and documents, and what it no longer takes for inherited."""

from pathlib import Path

import numpy as np
import pytest
from derive_material import LUNG, affine, ct_headers, job, mask, volume
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.derive.gate import gate
from node.derive.payload import payload_defects
from node.derive.sources import Sources
from node.derive.write import write
from node.model import Code, SeriesPart
from node.operator import FractionalMask, Map

SHAPE = (4, 8, 7)
PLACE = affine((2.0, 0.7, 0.5))


def results() -> dict:
    """One result of each kind that lives on a grid."""
    array = np.linspace(0, 1, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32)
    return {
        "thick": volume(SHAPE, PLACE),
        "body": mask(SHAPE, PLACE),
        "lung": FractionalMask(array, PLACE, "Lung", *LUNG),
        "adc": Map(array, PLACE, Code("113041", "DCM", "ADC"), Code("mm2/s", "UCUM", "mm2/s")),
    }


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("body", "SegmentSequence"), ("body", "SegmentationType"), ("lung", "PixelData"), ("thick", "RescaleSlope"),
        ("adc", "FloatPixelData"), ("adc", "ContentLabel"), ("adc", "RecognizableVisualFeatures"),
    ],
)  # fmt: skip
def test_what_the_source_class_never_had_is_not_inherited(tmp_path: Path, name: str, keyword: str) -> None:
    """A CT image has no segments, yet a segmentation without them is our fault, not the scanner's."""
    headers = ct_headers(*SHAPE, PLACE, RescaleSlope=None if keyword == "RescaleSlope" else "1")
    product = write({name: results()[name]}, job(name), Sources(tuple(headers)), tmp_path)[0]
    path = tmp_path / product.path
    assert not [defect for defect in gate(path, headers) if defect.introduced]
    spoilt = dcmread(path)
    del spoilt[keyword]
    spoilt.save_as(path, enforce_file_format=True)
    found = {defect.keyword: defect.introduced for defect in gate(path, headers)}
    if keyword == "RescaleSlope":  # this one the CT class demands, and its source lacks it
        assert found == {"RescaleSlope": False}
    else:
        assert any(introduced for introduced in found.values())
        assert keyword in found or "PixelData" in found


def image(**changed: object) -> Dataset:
    """A grey image of two 4 x 3 frames, or what *changed* makes of it; None removes."""
    made = Dataset()
    values = {"Rows": 4, "Columns": 3, "NumberOfFrames": 2, "SamplesPerPixel": 1, "BitsAllocated": 16,
              "PhotometricInterpretation": "MONOCHROME2", "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
              "PixelData": b"\0" * 48, **changed}  # fmt: skip
    for keyword, value in values.items():
        if value is not None:
            setattr(made, keyword, value)
    return made


_COLOUR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
           "PixelData": b"\0" * 72}  # fmt: skip
_FLOAT = {
    "PixelData": None,
    "BitsAllocated": 32,
    "BitsStored": None,
    "HighBit": None,
    "PixelRepresentation": None,
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, set()),
        ({"PixelData": b"\0" * 46}, {"PixelData"}),
        ({"PixelData": None}, {"PixelData"}),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": b"\0" * 4}, set()),
        ({"HighBit": 14}, {"BitsStored"}),
        ({"FloatPixelData": b"\0" * 96}, {"PixelData"}),
        ({**_FLOAT, "FloatPixelData": b"\0" * 96}, set()),
        ({**_FLOAT, "FloatPixelData": b"\0" * 48}, {"FloatPixelData"}),
        ({**_FLOAT, "FloatPixelData": b"\0" * 96, "HighBit": 31}, {"HighBit"}),
        ({**_FLOAT, "BitsAllocated": 64, "FloatPixelData": b"\0" * 192}, {"BitsAllocated"}),
        ({**_COLOUR, "PlanarConfiguration": 0}, set()),
        (_COLOUR, {"PlanarConfiguration"}),
        ({"PlanarConfiguration": 0}, {"PlanarConfiguration"}),
        (
            {**_COLOUR, "SamplesPerPixel": 1, "PixelData": b"\0" * 24, "PlanarConfiguration": 0},
            {"SamplesPerPixel"},
        ),
        ({"FrameIncrementPointer": 0x00540080}, {"FrameIncrementPointer"}),
        ({"FrameIncrementPointer": 0x00540080, "SliceVector": [1, 2]}, set()),
        ({"FrameIncrementPointer": 0x00540080, "SliceVector": [1, 2, 3]}, {"SliceVector"}),
        ({"PerFrameFunctionalGroupsSequence": [Dataset()]}, {"PerFrameFunctionalGroupsSequence"}),
    ],
)
def test_pixels_agree_with_their_header(changed: dict, named: set[str]) -> None:
    """Length, bits, samples and frames are held against each other, for integer and real pixels alike."""
    assert {keyword for keyword, _ in payload_defects(image(**changed), {"PixelData"})} == named


def test_a_palette_needs_its_tables() -> None:
    """PALETTE COLOR without lookup tables names all six that are missing."""
    found = {
        keyword
        for keyword, _ in payload_defects(image(PhotometricInterpretation="PALETTE COLOR"), {"PixelData"})
    }
    assert len(found) == 6


@pytest.mark.parametrize(
    ("data", "channels", "named"),
    [
        (b"\0" * 20, 2, set()),
        (b"\0" * 18, 2, {"WaveformSequence.WaveformData"}),
        (b"\0" * 20, 1, {"WaveformSequence.ChannelDefinitionSequence"}),
    ],
)
def test_waveforms_agree_with_their_header(data: bytes, channels: int, named: set[str]) -> None:
    """Two channels of five 16-bit samples are twenty bytes and two definitions."""
    group, dataset = Dataset(), Dataset()
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.WaveformBitsAllocated = 2, 5, 16
    group.ChannelDefinitionSequence = [Dataset()] * channels
    group.add_new("WaveformData", "OW", data)
    dataset.WaveformSequence = [group]
    assert {keyword for keyword, _ in payload_defects(dataset, {"WaveformSequence"})} == named


@pytest.mark.parametrize(
    ("data", "length", "named"),
    [
        (b"%PDF-1.7 ", 9, set()),
        (b"%PDF-1.7 \0", 9, set()),
        (b"<html>", 6, {"EncapsulatedDocument"}),
        (b"%PDF-1.7 ", 4, {"EncapsulatedDocumentLength"}),
    ],
)
def test_a_document_is_what_it_says(data: bytes, length: int, named: set[str]) -> None:
    """A PDF begins as one and has the length stated, give or take the padding."""
    dataset = Dataset()
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = length
    dataset.EncapsulatedDocument = data
    assert {keyword for keyword, _ in payload_defects(dataset, {"EncapsulatedDocument"})} == named


def uids(dataset: Dataset) -> set[str]:
    """All UIDs that an object says of itself: not those of its sources, study, class or place."""
    return {
        str(element.value)
        for element in dataset.iterall()
        if element.VR == "UI"
        and str(element.value).startswith("2.25.")
        and element.keyword != "InstanceCreatorUID"
    }


def test_parts_and_forms_share_no_uid(tmp_path: Path) -> None:
    """Objects of two parts of a series have no UID of ours in common: series, dimensions, tracking included."""
    numbers = {f"{name}{end}": 400 + i for i, name in enumerate(results()) for end in ("", "#2")}
    headers = Sources(tuple(ct_headers(*SHAPE, PLACE)))
    found = []
    for part in (SeriesPart(1, "b 0"), SeriesPart(2, "b 800")):
        products = write(results(), job(*results(), series_numbers=numbers), headers, tmp_path, part)
        found.append(set().union(*(uids(dcmread(tmp_path / product.path)) for product in products)))
    assert found[0]
    assert not found[0] & found[1]
