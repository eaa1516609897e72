"""Presentation states: graphics in the right place, the whole grey chain, accepted by DCMTK's checker."""

import subprocess
from pathlib import Path

import numpy as np
import peers
import pytest
from derive_material import affine, complaints, ct_headers, job
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken, Refused
from node.operator import Graphic, Presentation

MARKS = (
    Graphic(1, "CIRCLE", ((2.0, 3.0), (2.0, 4.0)), "nodule 8 mm, µ"),
    Graphic(1, "POINT", ((0.0, 0.0),)),
    Graphic(4, "POLYLINE", ((0.0, 0.0), (1.0, 2.0), (0.0, 0.0))),
    Graphic(4, "ELLIPSE", ((1.0, 1.0), (1.0, 3.0), (0.5, 2.0), (1.5, 2.0))),
)
LUNG = Presentation("LUNG WINDOW", "Lung window with marks", (-600.0, 1500.0), graphics=MARKS)


def written(tmp_path: Path, shown: Presentation, headers: list[Dataset] | None = None) -> Dataset:
    """Write *shown* as the only output; dciodvfy and dcmpschk find no error."""
    headers = ct_headers(6, 6, 5, affine((2.0, 0.7, 0.5))) if headers is None else headers
    (product,) = write({"state": shown}, job("state"), Sources(tuple(headers)), tmp_path)
    assert product.kind == "presentation"
    path = tmp_path / product.path
    assert complaints(path) == set()
    checked = subprocess.run([peers.need("dcmpschk"), str(path)], capture_output=True, text=True, check=False)
    assert "Test passed" in checked.stdout + checked.stderr
    return dcmread(path)


def test_graphics_lie_where_the_operator_put_them(tmp_path: Path) -> None:
    """(row, column) of pixel centres become column and row from the upper left corner (PS3.3 C.10.5)."""
    made = written(tmp_path, LUNG)
    second, fifth = made.GraphicAnnotationSequence
    assert second.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.2"
    assert fifth.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    circle, point = second.GraphicObjectSequence
    assert (circle.GraphicType, list(circle.GraphicData)) == ("CIRCLE", [3.5, 2.5, 4.5, 2.5])
    assert list(point.GraphicData) == [0.5, 0.5]
    assert second.TextObjectSequence[0].UnformattedTextValue == "nodule 8 mm, µ"
    line, ellipse = fifth.GraphicObjectSequence
    assert (line.NumberOfGraphicPoints, line.GraphicFilled) == (3, "N")
    assert list(ellipse.GraphicData) == [1.5, 1.5, 3.5, 1.5, 2.5, 1.0, 2.5, 2.0]
    assert made.GraphicLayerSequence[0].GraphicLayer == second.GraphicLayer == "MARKS"


def test_the_grey_chain_is_whole(tmp_path: Path) -> None:
    """A state replaces the images' own chain, so rescale, window and polarity all stand in it (C.11)."""
    made = written(tmp_path, LUNG)
    assert (made.RescaleSlope, made.RescaleIntercept, made.RescaleType) == (1, -1024, "HU")
    (window,) = made.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (-600, 1500)
    assert made.PresentationLUTShape == "IDENTITY"
    (area,) = made.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [5, 6]
    assert list(area.PresentationPixelSpacing) == [0.7, 0.5]
    (series,) = made.ReferencedSeriesSequence
    assert len(series.ReferencedImageSequence) == 6
    assert (made.ContentLabel, str(made.ContentCreatorName)) == ("LUNG WINDOW", "PACSNODE")


def test_marks_alone_change_nothing_else(tmp_path: Path) -> None:
    """A state of marks covers only the marked images and keeps each one's own window."""
    headers = ct_headers(6, 6, 5, affine((2.0, 0.7, 0.5)))
    headers[4].WindowCenter = "50"
    made = written(tmp_path, Presentation("MARKS", graphics=MARKS), headers)
    (series,) = made.ReferencedSeriesSequence
    found = [item.ReferencedSOPInstanceUID for item in series.ReferencedImageSequence]
    assert found == ["1.2.3.4.2", "1.2.3.4.5"]
    windows = {w.ReferencedImageSequence[0].ReferencedSOPInstanceUID: w.WindowCenter
               for w in made.SoftcopyVOILUTSequence}  # fmt: skip
    assert windows == {"1.2.3.4.2": 40, "1.2.3.4.5": 50}


@pytest.mark.parametrize(
    ("photometric", "inverted", "expected"),
    [
        ("MONOCHROME2", False, "IDENTITY"),
        ("MONOCHROME2", True, "INVERSE"),
        ("MONOCHROME1", False, "INVERSE"),
        ("MONOCHROME1", True, "IDENTITY"),
    ],
)
def test_polarity_is_relative_to_the_images(
    tmp_path: Path, photometric: str, inverted: bool, expected: str
) -> None:
    """MONOCHROME1 stays as it looks, and `inverted` turns whatever the image is."""
    headers = ct_headers(2, 6, 5, affine((2.0, 0.7, 0.5)), PhotometricInterpretation=photometric)
    made = written(tmp_path, Presentation("TURNED", window=(40.0, 400.0), inverted=inverted), headers)
    assert made.PresentationLUTShape == expected


def test_dcmtk_shows_the_window(tmp_path: Path) -> None:
    """DCMTK's renderer applies the state: the picture is the window's ramp, worked out by hand."""
    headers = ct_headers(1, 40, 50, affine((2.0, 1.0, 1.0)))
    values = np.arange(2000).reshape(40, 50)  # HU + 1024
    image = headers[0]
    image.PixelData = values.astype("<u2").tobytes()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    state = written(tmp_path, Presentation("WIDE", window=(0.0, 1000.0)), headers)
    out = tmp_path / "shown.pgm"
    command = [peers.need("dcmp2pgm"), "--pstate", str(state.filename), str(tmp_path / "image.dcm"), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    shown = np.asarray(Image.open(out), float)
    expected = np.clip((values - 1024 - (0 - 0.5)) / 999 + 0.5, 0, 1) * 255  # C.11.2.1.2.1
    assert shown.shape == (40, 50)
    assert np.abs(shown - expected).max() <= 1.5


@pytest.mark.parametrize(
    ("shown", "changed", "error", "words"),
    [
        (Presentation("Lung"), {}, Broken, "capital letters"),
        (Presentation("A", window=(0.0, 0.0)), {}, Broken, "not above 0"),
        (Presentation("A", graphics=(Graphic(9, "POINT", ((0.0, 0.0),)),)), {}, Broken, "image 9"),
        (Presentation("A", graphics=(Graphic(0, "CIRCLE", ((0.0, 0.0),)),)), {}, Broken, "1 points; 2 are"),
        (Presentation("A"), {"PhotometricInterpretation": "RGB"}, Refused, "grey images, these are RGB"),
    ],
)
def test_what_cannot_be_said_is_told(
    tmp_path: Path, shown: Presentation, changed: dict[str, str], error: type[Exception], words: str
) -> None:
    """Wrong marks are the operator's fault, colour images do not suit, each in words."""
    with pytest.raises(error, match=words):
        written(tmp_path, shown, ct_headers(6, 6, 5, affine((2.0, 0.7, 0.5)), **changed))


def test_one_state_has_one_rescale(tmp_path: Path) -> None:
    """Images with rescales of their own, as in PET, are refused: one modality LUT would falsify the rest."""
    headers = ct_headers(3, 6, 5, affine((2.0, 0.7, 0.5)))
    headers[1].RescaleSlope = "2"
    with pytest.raises(Refused, match="differ in RescaleSlope"):
        written(tmp_path, LUNG.__class__("LUNG", window=(0.0, 100.0)), headers)


def test_unknown_side_is_said_to_be_unknown(tmp_path: Path) -> None:
    """Sources that name no body part leave Laterality empty (type 2C), and dciodvfy accepts it."""
    headers = ct_headers(2, 6, 5, affine((2.0, 0.7, 0.5)), BodyPartExamined=None)
    assert not written(tmp_path, Presentation("WIDE", window=(0.0, 1000.0)), headers).Laterality


def test_a_second_run_is_the_same_bytes(tmp_path: Path) -> None:
    """The same presentation gives the same file."""
    for folder in ("a", "b"):
        written(tmp_path / folder, LUNG)
    assert (tmp_path / "a/state/00001.dcm").read_bytes() == (tmp_path / "b/state/00001.dcm").read_bytes()
