"""Segmentations and reports: in the right place, linked, and valid to peers."""

import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import peers
import pytest
from derive_material import affine, complaints, ct_headers, job, mask, numbers, sample, volume
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.derive.sources import Sources
from node.derive.write import write
from node.model import Product

SHAPE = (6, 8, 7)


def everything(tmp_path: Path, tilt: float = 0.0) -> tuple[list[Product], list[Dataset]]:
    """An image series, a mask, and measurements of the mask and of the whole volume."""
    place = affine((2.0, 0.7, 0.5), tilt)
    region = mask(SHAPE, place)
    results = {"thick": volume(SHAPE, place), "body": region, "stats": [*numbers(region), *numbers(None)]}
    headers = ct_headers(*SHAPE, place)
    return write(results, job("stats", "body", "thick"), Sources(tuple(headers)), tmp_path), headers


def in_patient(seg: hd.seg.Segmentation) -> set[tuple[float, ...]]:
    """Millimetre positions of all voxels of segment 1, from the frames' own plane attributes."""
    found = set()
    shared = seg.SharedFunctionalGroupsSequence[0]
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for item, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        corner = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        for j, i in np.argwhere(frame):
            point = corner + column * spacing[0] * j + row * spacing[1] * i
            found.add(tuple(float(v) + 0.0 for v in np.round(point, 2)))
    return found


@pytest.mark.parametrize("tilt", [0.0, 0.35])
@pytest.mark.parametrize("finer", [1.0, 0.5])
def test_segment_lies_on_the_mask(tmp_path: Path, tilt: float, finer: float) -> None:
    """Every segment voxel has the patient coordinates of its mask voxel, oblique and on a grid of its own."""
    place = affine((2.0, 0.7, 0.5), tilt)
    own = place.copy()
    own[:3, 0] *= finer
    made = mask(SHAPE, own)
    product = write({"body": made}, job("body"), Sources(tuple(ct_headers(*SHAPE, place))), tmp_path)[0]
    seg = hd.seg.segread(tmp_path / product.path)
    expected = {
        tuple(float(v) + 0.0 for v in np.round((own @ [*index, 1])[:3], 2))
        for index in np.argwhere(made.array)
    }
    assert in_patient(seg) == expected


def test_segment_names_its_source_images(tmp_path: Path) -> None:
    """On the source's grid each frame refers to the slice it was drawn on."""
    products, headers = everything(tmp_path)
    seg = next(dcmread(tmp_path / p.path) for p in products if p.kind == "segmentation")
    named = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: list(
            frame.PlanePositionSequence[0].ImagePositionPatient
        )
        for frame in seg.PerFrameFunctionalGroupsSequence
    }
    assert named == {h.SOPInstanceUID: list(h.ImagePositionPatient) for h in headers[1:3]}
    assert seg.SegmentSequence[0].SegmentAlgorithmName == "segment_threshold"
    assert seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0.1.0"


def test_report_points_at_the_segment(tmp_path: Path) -> None:
    """The volumetric group refers to the SEG of its run by UID, shares its tracking UID, and has UCUM units."""
    products, _ = everything(tmp_path)
    assert [p.kind for p in products[-3:]] == ["segmentation", "report", "report"]
    seg = dcmread(tmp_path / products[-3].path)
    report = hd.sr.srread(tmp_path / products[-2].path)
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert group.tracking_uid == seg.SegmentSequence[0].TrackingUID
    found = {m.name.value: (m.value, m.unit.value) for m in group.get_measurements()}
    assert found == {"118565006": (12.5, "mm3"), "112031": (-45.25, "[hnsf'U]")}
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    whole = hd.sr.srread(tmp_path / products[-1].path)
    assert len(whole.content.get_image_measurement_groups()) == 1


@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_peers_accept_what_we_write(tmp_path: Path, tilt: float) -> None:
    """Dciodvfy finds no error in any object, dsrdump parses each report."""
    products, _ = everything(tmp_path, tilt)
    for product in products:
        assert complaints(tmp_path / product.path) == set()
        if product.kind == "report":
            subprocess.run(
                [peers.need("dsrdump"), str(tmp_path / product.path)], capture_output=True, check=True
            )


def test_the_report_validator_finds_no_error(tmp_path: Path) -> None:
    """PixelMed's SR validator, the IHE AIR gate, counts zero errors in either kind of report."""
    products, _ = everything(tmp_path)
    reports = [tmp_path / p.path for p in products if p.kind == "report"]
    assert [peers.pixelmed_sr(path) for path in reports] == [[], []]


@pytest.mark.parametrize("folder", ["MR/siemens-dti-classic", "PET/qin-headneck-0139"])
def test_real_sources_give_valid_objects(tmp_path: Path, folder: str) -> None:
    """A segmentation and a report of an oblique MR and a PET have no error that the source has not."""
    array, place, headers = sample(folder, 6)
    region = mask(array.shape, place)
    products = write(
        {"body": region, "stats": numbers(region)}, job("body", "stats"), Sources(tuple(headers)), tmp_path
    )
    known = complaints(headers[0].filename)
    for product in products:
        assert complaints(tmp_path / product.path) <= known


def test_a_rerun_is_the_same_bytes(tmp_path: Path) -> None:
    """Two writes of the same results give equal files, digests and UIDs for all kinds of objects."""
    first, _ = everything(tmp_path / "a")
    second, _ = everything(tmp_path / "b")
    assert first == second
    for product in first:
        assert (tmp_path / "a" / product.path).read_bytes() == (tmp_path / "b" / product.path).read_bytes()
