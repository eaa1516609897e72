"""Directions of diffusion gradients: one meaning, whoever made the scanner, and none where none is documented."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from test_read_mosaic import csa_header, private
from volume_phantoms import item, texts, turned

from node.read.diffusion import b_share, directionality_of, gradient_of, is_computed, told_apart_by
from node.read.frames import enhanced, sources
from node.read.vendor import frame_facts

HALF = np.sqrt(0.5)


def header(maker: str = "", angle: float = 0.0, **more: Any) -> Dataset:
    """A header of *maker* with the slices turned as `volume_phantoms.turned` does."""
    turn = turned(angle)
    said = {
        "Manufacturer": maker,
        "PatientPosition": "HFS",
        "ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION"],
        "ImageOrientationPatient": texts((*turn[:, 0], *turn[:, 1])),
    }
    return item(**said | more)


def owned(ds: Dataset, group: int, creator: str, **elements: tuple[str, Any]) -> Dataset:
    """*ds* with private elements `xNN=(VR, value)` of *creator*."""
    block = ds.private_block(group, creator, create=True)
    for name, (vr, value) in elements.items():
        block.add_new(int(name[1:], 16), vr, value)
    return ds


def ge(vector: tuple[float, float, float], flag: int = 16, angle: float = 0.0, **more: Any) -> Dataset:
    """A GE tensor image of b 1000."""
    ds = header("GE MEDICAL SYSTEMS", angle, **{"InPlanePhaseEncodingDirection": "COL", **more})
    owned(
        ds, 0x0019, "GEMS_ACQU_01", **{f"xB{n}": ("DS", f"{v:g}") for n, v in zip("BCD", vector, strict=True)}
    )
    return owned(ds, 0x0043, "GEMS_PARM_01", x39=("IS", ["1000001000", "8", "0", "0"]), x30=("SS", flag))


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_every_maker_says_the_same_direction(angle: float) -> None:
    """One gradient is read alike from the standard attribute, Siemens' element and CSA, and Philips' three."""
    vector = [HALF, 0.0, -HALF]
    csa = header("SIEMENS", angle)
    private(csa, 0x10, csa_header({"DiffusionGradientDirection": [str(v) for v in vector]}))
    philips = {f"xB{n}": ("FL", v) for n, v in enumerate(vector)}
    given_as = {
        "standard": header(angle=angle, DiffusionGradientOrientation=vector),
        "siemens": owned(header("SIEMENS", angle), 0x0019, "SIEMENS MR HEADER", x0E=("FD", vector)),
        "siemens as UN": owned(
            header("SIEMENS", angle), 0x0019, "SIEMENS MR HEADER", x0E=("UN", struct.pack("<3d", *vector))
        ),
        "csa": csa,
        "philips": owned(header("Philips", angle), 0x2005, "Philips MR Imaging DD 001", **philips),
    }
    for name, ds in given_as.items():
        assert gradient_of(ds) == pytest.approx((HALF, 0, -HALF), abs=1e-6), name
        assert directionality_of(ds) == "DIRECTIONAL", name


def test_directions_of_the_image_are_turned_into_the_patient() -> None:
    """United Imaging's vector counts along the image: along its rows it is the rows' direction in the patient."""
    ds = owned(header("UIH", 25.0), 0x0065, "Image Private Header", x37=("FD", [0.0, 1.0, 0.0]))
    assert gradient_of(ds) == pytest.approx(tuple(turned(25.0)[:, 1]), abs=1e-6)


def test_ge_directions_are_given_where_their_convention_is_documented() -> None:
    """GE: axial, head first, phase along columns → x, y, -z of the image; else only told apart (dcm2niix)."""
    assert gradient_of(ge((0, HALF, HALF))) == pytest.approx((0, HALF, -HALF), abs=1e-6)
    turn = turned(10.0)
    assert gradient_of(ge((0, 0, 1), angle=10.0)) == pytest.approx(tuple(-turn[:, 2]), abs=1e-6)
    for undocumented in (
        ge((0, HALF, HALF), InPlanePhaseEncodingDirection="ROW"),
        ge((0, HALF, HALF), PatientPosition="FFS"),
        ge((0, HALF, HALF), angle=80.0),
        ge((0, HALF, HALF), InPlanePhaseEncodingDirection=None),
    ):
        assert gradient_of(undocumented) is None
        assert told_apart_by(undocumented) == ("0", "0.707107", "0.707107")
        assert directionality_of(undocumented) == "DIRECTIONAL"


def test_ge_scales_the_b_value_by_the_length_of_its_vector() -> None:
    """A vector of length 0.7071 in a table of b 1000 means b 500 (dcm2niix issues 245, 777)."""
    assert frame_facts(ge((1, 0, 0)))["b_value"] == "1000"
    assert frame_facts(ge((HALF, 0, 0)))["b_value"] == "500"
    assert b_share(ge((0, 0, 0), flag=15)) == 1
    standard = ge((HALF, 0, 0))
    standard.DiffusionBValue = 1000.0
    assert frame_facts(standard)["b_value"] == "1000"
    assert "b_value" not in frame_facts(
        ge((0, 0, 0))
    )  # unweighted, or its direction was lost: nobody can tell


@pytest.mark.parametrize(("flag", "kind"), [(14, "NONE"), (15, "ISOTROPIC"), (3, ""), (0, "")])
def test_ge_says_what_was_combined(flag: int, kind: str) -> None:
    """GE marks unweighted and combined images; single directions of its ALL scan have no vector."""
    assert directionality_of(ge((0, 0, 0), flag)) == kind
    assert gradient_of(ge((0, 0, 0), flag)) is None


def test_the_scanners_trace_is_no_direction() -> None:
    """TRACEW in Image Type is the scanner's average, whatever gradient stands beside it."""
    ds = owned(
        header("SIEMENS"), 0x0019, "SIEMENS MR HEADER", x0D=("CS", "DIRECTIONAL"), x0E=("FD", [1.0, 0, 0])
    )
    ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND"]
    assert directionality_of(ds) == "ISOTROPIC"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"]
    assert directionality_of(ds) == "DIRECTIONAL"
    assert directionality_of(header(DiffusionDirectionality="NONE")) == "NONE"
    assert directionality_of(owned(header("SIEMENS"), 0x0019, "SIEMENS MR HEADER", x0C=("IS", "0"))) == "NONE"
    assert directionality_of(header()) == ""


@pytest.mark.parametrize(
    ("flavours", "computed"),
    [
        (["DIFFUSION", "ADC", "ND"], True), (["DIFFUSION", "ADC_UNSPECIFIED"], True),
        (["DIFFUSION", "FA"], True), (["FAST"], False),
        (["DIFFUSION", "CALC_BVALUE", "TRACEW"], True), (["DIFFUSION", "TRACEW"], False),
        (["DIFFUSION", "NONE"], False),
    ],
)  # fmt: skip
def test_computed_images_are_known_by_their_image_type(flavours: list[str], computed: bool) -> None:
    """ADC, FA and calculated b-values are computed; a trace and plain diffusion images are not."""
    assert is_computed(header(ImageType=["DERIVED", "PRIMARY", *flavours])) is computed


def test_another_makers_element_is_not_taken() -> None:
    """(0019,100E) under another creator, or without one in a header of another maker, is no Siemens direction."""
    other = owned(header("SIEMENS"), 0x0019, "ACME 1.0", x0E=("FD", [1.0, 0.0, 0.0]))
    assert gradient_of(other) is None
    unowned = header("SIEMENS")
    unowned.add_new(0x0019100E, "FD", [1.0, 0.0, 0.0])
    assert gradient_of(unowned) == (1, 0, 0)
    unowned.Manufacturer = "Canon"
    assert gradient_of(unowned) is None


@given(st.binary(max_size=40), st.sampled_from(["SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "UIH"]))
def test_no_bytes_break_it(junk: bytes, maker: str) -> None:
    """Whatever stands in private elements: a unit vector, or none."""
    ds = header(maker, InPlanePhaseEncodingDirection="COL")
    for group, creator, elements in (
        (0x0019, "SIEMENS MR HEADER", (0x0D, 0x0E)), (0x0065, "Image Private Header", (0x37,)),
        (0x2005, "Philips MR Imaging DD 001", (0xB0, 0xB1, 0xB2)), (0x0043, "GEMS_PARM_01", (0x30,)),
        (0x0019, "GEMS_ACQU_01", (0xBB, 0xBC, 0xBD)), (0x0029, "SIEMENS CSA HEADER", (0x10,)),
    ):  # fmt: skip
        for element in elements:
            ds.private_block(group, creator, create=True).add_new(element, "UN", junk)
    found = gradient_of(ds)
    assert found is None or np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert directionality_of(ds) in ("", "NONE", "DIRECTIONAL", "ISOTROPIC", "BMATRIX")


def test_real_images_say_their_directions(samples: Path) -> None:
    """Siemens classic without private creators, Philips enhanced by the standard, GE without any."""
    siemens = [dcmread(path) for path in sorted((samples / "MR/siemens-dti-classic").iterdir())]
    assert {gradient_of(ds) for ds in siemens} == {None, (0.825602, -0.389021, -0.408709)}
    philips = enhanced(sources([next((samples / "MR/philips-enhanced-dti").iterdir())])[0])
    assert {(gradient_of(f.header), directionality_of(f.header)) for f in philips} == {
        (None, "NONE"), ((1, 0, 0), "DIRECTIONAL"), ((0, -1, 0), "DIRECTIONAL"),
        ((-0.025999, -0.649187, 0.760185), "DIRECTIONAL"),
    }  # fmt: skip
    ge_images = [dcmread(path) for path in sorted((samples / "MR/ge-dti-002").iterdir())]
    assert {(gradient_of(ds), directionality_of(ds)) for ds in ge_images} == {(None, "")}
