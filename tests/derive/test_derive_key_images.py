"""Key objects: they point at the right images and frames, and readers of reports accept them."""

import subprocess
from pathlib import Path

import highdicom as hd
import peers
import pytest
from derive_material import affine, complaints, ct_headers, job
from pydicom import dcmread

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken, Refused
from node.model import Code
from node.operator import KeyImages

OF_INTEREST = Code("113000", "DCM", "Of Interest")
SELECTION = KeyImages(OF_INTEREST, (4, 1, 4), "Slices with the largest area")


def written(tmp_path: Path, selection: KeyImages, sources: Sources | None = None) -> Path:
    """Write *selection* as the only output."""
    headers = tuple(ct_headers(6, 6, 5, affine((2.0, 0.7, 0.5))))
    (product,) = write({"keys": selection}, job("keys"), sources or Sources(headers), tmp_path)
    assert product.kind == "key_images"
    return tmp_path / product.path


def test_highdicom_reads_the_selection(tmp_path: Path) -> None:
    """The referenced images are the selected ones, each once, in the operator's order, with title and text."""
    document = hd.ko.KeyObjectSelectionDocument.from_dataset(dcmread(written(tmp_path, SELECTION)))
    found = [item.referenced_sop_instance_uid for item in document.content.get_references()]
    assert found == ["1.2.3.4.5", "1.2.3.4.2"]
    assert document.ConceptNameCodeSequence[0].CodeValue == "113000"
    texts = [item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"]
    assert "Slices with the largest area" in texts
    assert {document.resolve_reference(uid)[1] for uid in found} == {"1.2.3.4"}
    assert document.Modality == "KO"


def test_validators_find_no_error(tmp_path: Path) -> None:
    """Dciodvfy and PixelMed's validator accept IOD and template."""
    path = written(tmp_path, SELECTION)
    assert complaints(path) == set()
    assert peers.pixelmed_sr(path) == []


def test_frames_of_one_object_are_named(tmp_path: Path) -> None:
    """Of a multi-frame object the selected frames are meant, and the evidence lists the object once."""
    enhanced = "1.2.840.10008.5.1.4.1.1.2.1"
    headers = ct_headers(6, 6, 5, affine((2.0, 0.7, 0.5)), SOPClassUID=enhanced, SOPInstanceUID="1.2.3.4.9")
    path = written(tmp_path, SELECTION, Sources(tuple(headers), (1, 2, 3, 4, 5, 6)))
    assert complaints(path) == set()
    made = dcmread(path)
    (image,) = (item for item in made.ContentSequence if item.ValueType == "IMAGE")
    assert list(image.ReferencedSOPSequence[0].ReferencedFrameNumber) == [2, 5]
    (series,) = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == ["1.2.3.4.9"]
    assert "ReferencedFrameNumber" not in series.ReferencedSOPSequence[0]


@pytest.mark.parametrize(
    ("selection", "error", "words"),
    [
        (KeyImages(OF_INTEREST, ()), Refused, "no image was selected"),
        (KeyImages(OF_INTEREST, (6,)), Broken, "image 6 was selected, the operator got 6"),
        (KeyImages(Code("113001", "DCM", "Rejected for Quality Reasons"), (0,)), Broken, "rejects images"),
        (KeyImages(Code("113013", "DCM", "Best In Set"), (0,)), Broken, "asks for a reason code"),
    ],
)
def test_what_must_not_leave(
    tmp_path: Path, selection: KeyImages, error: type[Exception], words: str
) -> None:
    """Empty and impossible selections are told in words, and no operator can make a PACS hide images."""
    with pytest.raises(error, match=words):
        written(tmp_path, selection)


def test_a_second_run_is_the_same_bytes(tmp_path: Path) -> None:
    """The same selection gives the same file."""
    assert written(tmp_path / "a", SELECTION).read_bytes() == written(tmp_path / "b", SELECTION).read_bytes()


def test_a_dose_grid_is_no_image_to_point_at(tmp_path: Path) -> None:
    """RT Dose is referred to as composite object, without frames; DCMTK reads the document."""
    dose = "1.2.840.10008.5.1.4.1.1.481.2"
    headers = ct_headers(6, 6, 5, affine((2.0, 0.7, 0.5)), SOPClassUID=dose, SOPInstanceUID="1.2.3.4.9")
    path = written(tmp_path, SELECTION, Sources(tuple(headers), (1, 2, 3, 4, 5, 6)))
    (item,) = (item for item in dcmread(path).ContentSequence if "ReferencedSOPSequence" in item)
    assert item.ValueType == "COMPOSITE"
    assert "ReferencedFrameNumber" not in item.ReferencedSOPSequence[0]
    subprocess.run([peers.need("dsrdump"), "-q", str(path)], check=True, capture_output=True)
