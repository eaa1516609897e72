"""dcmqi, the converter that 3D Slicer builds on, reads our segmentations and reports as they are meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import peers
import pytest
import SimpleITK
from derive_material import LUNG, affine, ct_headers, job, mask, numbers

from node.derive.sources import Sources
from node.derive.write import write
from node.operator import FractionalMask

SHAPE = (6, 8, 7)


def run(program: str, *arguments: str) -> None:
    """Run one of dcmqi's programs; it must end well."""
    done = subprocess.run([peers.dcmqi(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def marked(folder: Path) -> dict[tuple[float, ...], float]:
    """Patient coordinates, to 0.01 mm, of every voxel above 0 in the one image of *folder*, and its value."""
    (path,) = folder.glob("*.nrrd")
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    return {
        tuple(float(round(v, 2)) + 0.0 for v in image.TransformIndexToPhysicalPoint((int(i), int(j), int(k)))):
        float(array[k, j, i])
        for k, j, i in np.argwhere(array > 0)
    }  # fmt: skip


def expected(array: np.ndarray, place: np.ndarray) -> dict[tuple[float, ...], float]:
    """The same of an array on its affine."""
    return {
        tuple(float(round(v, 2)) + 0.0 for v in (place @ [*index, 1])[:3]): float(array[tuple(index)])
        for index in np.argwhere(array > 0)
    }


@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_a_segmentation_marks_the_same_places(tmp_path: Path, tilt: float) -> None:
    """Its image marks our voxels at our coordinates, straight and doubly oblique, under our label and codes."""
    place = affine((2.0, 0.7, 0.5), tilt)
    region = mask(SHAPE, place)
    headers = Sources(tuple(ct_headers(*SHAPE, place)))
    (product,) = write({"body": region}, job("body"), headers, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    run("segimage2itkimage", "--inputDICOM", str(tmp_path / product.path), "--outputDirectory", str(out))
    assert marked(out).keys() == expected(region.array, place).keys()
    (described,) = out.glob("*.json")
    ((segment,),) = json.loads(described.read_text())["segmentAttributes"]
    assert segment["SegmentLabel"] == "Lung"
    assert segment["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == LUNG[1].value


def test_a_fractional_segmentation_is_read(tmp_path: Path) -> None:
    """Wherever our share is above 0 its image is as well, at the same place."""
    place = affine((2.0, 0.7, 0.5))
    array = mask(SHAPE, place).array * np.float32(0.4)
    shares = FractionalMask(array, place, "Lung", *LUNG)
    headers = Sources(tuple(ct_headers(*SHAPE, place)))
    (product,) = write({"body": shares}, job("body"), headers, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    run("segimage2itkimage", "--inputDICOM", str(tmp_path / product.path), "--outputDirectory", str(out))
    assert marked(out).keys() == expected(array, place).keys()


def test_a_report_gives_its_numbers(tmp_path: Path) -> None:
    """Value, unit, quantity and derivation of each measurement, and the segment they are of, come back."""
    place = affine((2.0, 0.7, 0.5))
    region = mask(SHAPE, place)
    headers = Sources(tuple(ct_headers(*SHAPE, place)))
    segment, report = write(
        {"body": region, "stats": numbers(region)}, job("body", "stats"), headers, tmp_path
    )
    run(
        "tid1500reader", "--inputDICOM", str(tmp_path / report.path),
        "--outputMetadata", str(tmp_path / "report.json"),
    )  # fmt: skip
    (group,) = json.loads((tmp_path / "report.json").read_text())["Measurements"]
    assert group["segmentationSOPInstanceUID"] == segment.sop_uid
    found = {
        (item["quantity"]["CodeValue"], item["units"]["CodeValue"]): float(item["value"])
        for item in group["measurementItems"]
    }
    assert found == {("118565006", "mm3"): 12.5, ("112031", "[hnsf'U]"): -45.25}
