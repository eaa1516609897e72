"""The transcoder: the same pixels by other decoders, everything else as it came, and limits that hold."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import keyword_for_tag
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID

from node.derive.identity import lossy_copy, lossy_series
from node.flow import Copying
from node.transcoder import answer
from node.transcodings import Made, Transcodings

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
RLE, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
JPEG_LS_NEAR, LOSSY_JPEG_2000 = "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"
STORAGE = {
    "PixelData", "PhotometricInterpretation", "PlanarConfiguration", "LossyImageCompression", "BitsAllocated",
}  # fmt: skip
IMAGES = (
    "CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_RLE.dcm", "JPGExtended.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit.dcm",
    "examples_palette.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm", "examples_overlay.dcm",
    "ExplVR_BigEnd.dcm", "image_dfl.dcm", "GDCMJ2K_TextGBR.dcm", "SC_ybr_full_422_uncompressed.dcm",
)  # fmt: skip


def test_file(name: str) -> Path:
    """One of pydicom's."""
    return Path(str(get_testdata_file(name)))


test_file.__test__ = False  # type: ignore[attr-defined]


def asked(source: Path, out: Path, *to: str) -> dict[str, Any]:
    """What the conductor asks."""
    ds = dcmread(source, stop_before_pixels=True)
    uid = str(ds.get("SOPInstanceUID", ""))
    return {
        "source": str(source), "out": str(out), "syntax": str(ds.file_meta.TransferSyntaxUID), "to": list(to),
        "sop_class": str(ds.get("SOPClassUID", "")), "sop_uid": uid,
        "lossy": {s: (lossy_copy(uid, s), lossy_series(uid, s)) for s in (JPEG_LS_NEAR, LOSSY_JPEG_2000)},
    }  # fmt: skip


def transcoded(source: Path, out: Path, *to: str) -> dict[str, Any]:
    """What the transcoder answers, worked out here."""
    return answer(json.dumps(asked(source, out, *to)))


def said(ds: Dataset) -> set[int]:
    """The tags that do not say how pixels are stored; a retired group length and a stray delimiter are none."""
    whole = {tag for tag in ds.keys() if tag.element and tag.group != 0xFFFE}  # noqa: SIM118 - no conversion
    return {tag for tag in whole if keyword_for_tag(tag) not in STORAGE}


def assert_rest_equal(one: Dataset, two: Dataset) -> None:
    """All that does not say how the pixels are stored is there, with the same values."""
    tags = said(one)
    assert tags == said(two)
    for tag in tags:
        if tag >> 16 & 1 == 0 and one[tag].VR != "SQ":  # of private ones pydicom guesses what it is not told
            assert two[tag].value == one[tag].value, tag


@pytest.mark.parametrize("to", [EXPLICIT, IMPLICIT, RLE, JPEG_LS, JPEG_2000])
@pytest.mark.parametrize("name", IMAGES)
def test_pixels_and_header_stay(name: str, to: str, tmp_path: Path) -> None:
    """Every lossless copy decodes to the pixels of its original, and says the same of everything else."""
    source, out = test_file(name), tmp_path / "copy.dcm"
    assert transcoded(source, out, to)["syntax"] == to
    one, two = dcmread(source), dcmread(out)
    assert two.file_meta.TransferSyntaxUID == to and two.SOPInstanceUID == one.SOPInstanceUID
    assert np.array_equal(one.pixel_array, two.pixel_array)
    assert_rest_equal(one, two)


DECODERS = (
    ("dcmdrle", RLE), ("dcmdjpls", JPEG_LS),
)  # fmt: skip


@pytest.mark.parametrize(("program", "to"), DECODERS)
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "examples_rgb_color.dcm", "SC_rgb_rle_2frame.dcm", "examples_palette.dcm"]
)
def test_dcmtk_decodes_what_is_encoded(name: str, program: str, to: str, tmp_path: Path) -> None:
    """An independent decoder gets the original's pixels out of the copy."""
    source, out, plain = test_file(name), tmp_path / "copy.dcm", tmp_path / "plain.dcm"
    assert transcoded(source, out, to)["syntax"] == to
    subprocess.run([peers.need(program), "-q", str(out), str(plain)], check=True)
    assert np.array_equal(dcmread(source).pixel_array, dcmread(plain).pixel_array)


@pytest.mark.parametrize(
    ("program", "name", "most"),
    [
        (("dcmdjpls",), "MR_small_jpeg_ls_lossless.dcm", 0),
        (("dcmdrle",), "SC_rgb_rle_2frame.dcm", 0),
        (("dcmdjpeg",), "SC_rgb_jpeg_gdcm.dcm", 0),
        (("dcmdjpeg",), "JPGExtended.dcm", 1),
        (("dcmdjpeg",), "SC_rgb_dcmtk_+eb+cr.dcm", 1),
        (("dcmdjpeg",), "SC_rgb_dcmtk_+eb+cy+np.dcm", 3),  # two inverse DCTs and two upsamplings: not exact
    ],
)
def test_what_is_decoded_is_what_dcmtk_decodes(
    program: tuple[str, ...], name: str, most: int, tmp_path: Path
) -> None:
    """An independent decoder gets the same pixels out of the original, in the same colour space."""
    source, ours, theirs = test_file(name), tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
    assert transcoded(source, ours, EXPLICIT)["syntax"] == EXPLICIT
    subprocess.run([peers.need(*program), "-q", "+cp" if program == ("dcmdjpeg",) else "-q", str(source), str(theirs)],
                   check=True)  # fmt: skip
    one, two = dcmread(ours), dcmread(theirs)
    assert one.PhotometricInterpretation == two.PhotometricInterpretation
    assert np.abs(one.pixel_array.astype(int) - two.pixel_array.astype(int)).max() <= most


@pytest.mark.parametrize(
    "folder", ["CT", "MR", "US", "NM", "PET", "XA", "CR", "DX", "ES", "DERM", "OBJECTS", "PATH"]
)
def test_real_images(folder: str, tmp_path: Path) -> None:
    """Of each kind of real object the first few go to Implicit VR and to JPEG-LS and keep pixels and header."""
    done = 0
    for source in sorted(p for p in peers.need_samples(folder).rglob("*") if p.is_file())[:60:12]:
        if source.stat().st_size > 20_000_000:
            continue
        try:
            one = dcmread(source)
            has_pixels = "PixelData" in one and one.pixel_array is not None
        except Exception:  # noqa: BLE001, S112 - whatever is beside the images, and what nobody can decode
            continue
        made = transcoded(source, tmp_path / "copy.dcm", *([JPEG_LS] if has_pixels else []), IMPLICIT)
        assert "syntax" in made, (source.name, made)
        two = dcmread(tmp_path / "copy.dcm")
        if has_pixels:
            assert np.array_equal(one.pixel_array, two.pixel_array), source.name
        assert_rest_equal(one, two)
        done += 1
    if not done:
        pytest.skip("nothing of a size for this test")


def test_what_cannot_be_compressed_takes_the_next(tmp_path: Path) -> None:
    """A report has no pixels, a segmentation has single bits: they go to the syntax behind the compressions."""
    for name in ("test-SR.dcm", "liver_1frame.dcm", "rtdose.dcm"):
        made = transcoded(test_file(name), tmp_path / "copy.dcm", RLE, JPEG_LS, JPEG_2000, EXPLICIT)
        assert made["syntax"] == EXPLICIT
        assert_rest_equal(dcmread(test_file(name)), dcmread(tmp_path / "copy.dcm"))
    made = transcoded(test_file("test-SR.dcm"), tmp_path / "none.dcm", RLE, JPEG_LS)
    assert made["failed"] == (
        "RLE Lossless: it has no pixels, so there is nothing to compress; "
        "JPEG-LS Lossless Image Compression: it has no pixels, so there is nothing to compress"
    )
    assert not (tmp_path / "none.dcm").exists()


def test_lossy_jpeg_stays_called_lossy(tmp_path: Path) -> None:
    """What once lost something says so for ever, also where the scanner forgot it (PS3.3 C.7.6.1.1.5)."""
    ds = dcmread(test_file("SC_rgb_jpeg_dcmtk.dcm"))
    if "LossyImageCompression" in ds:
        del ds.LossyImageCompression
    ds.save_as(tmp_path / "forgot.dcm")
    for to in (EXPLICIT, JPEG_LS):
        transcoded(tmp_path / "forgot.dcm", tmp_path / "copy.dcm", to)
        assert dcmread(tmp_path / "copy.dcm").LossyImageCompression == "01"


def test_floats_change_their_header_only(tmp_path: Path) -> None:
    """A parametric map's floats go from one uncompressed syntax to another, and into no compression."""
    ds = dcmread(test_file("CT_small.dcm"))
    values = np.linspace(-1, 1, 128 * 128, dtype="<f4").tobytes()
    del ds.PixelData
    ds.FloatPixelData = values
    ds.save_as(tmp_path / "map.dcm")
    assert transcoded(tmp_path / "map.dcm", tmp_path / "copy.dcm", JPEG_LS, IMPLICIT)["syntax"] == IMPLICIT
    assert dcmread(tmp_path / "copy.dcm").FloatPixelData == values
    assert "floating-point pixels" in transcoded(tmp_path / "map.dcm", tmp_path / "no.dcm", JPEG_LS)["failed"]


def test_an_icon_is_decoded_with_its_image(tmp_path: Path) -> None:
    """An icon that was compressed like its image is plain in the copy, as an uncompressed syntax demands."""
    ds = dcmread(test_file("MR_small_RLE.dcm"))
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    icon.Rows = icon.Columns = icon.BitsAllocated = icon.BitsStored = 8
    icon.HighBit, icon.PixelRepresentation = 7, 0
    frame = get_encoder(UID(RLE)).encode(
        pixels, rows=8, columns=8, samples_per_pixel=1, number_of_frames=1, bits_allocated=8, bits_stored=8,
        pixel_representation=0, photometric_interpretation="MONOCHROME2", pixel_keyword="PixelData",
    )  # fmt: skip
    icon.PixelData = encapsulate([frame])
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    ds.IconImageSequence = [icon]
    ds.save_as(tmp_path / "icon.dcm")
    for to in (EXPLICIT, JPEG_LS):
        assert transcoded(tmp_path / "icon.dcm", tmp_path / "copy.dcm", to)["syntax"] == to
        assert dcmread(tmp_path / "copy.dcm").IconImageSequence[0].PixelData == pixels.tobytes()


def test_bits_that_an_encoder_would_drop_are_not_dropped(tmp_path: Path) -> None:
    """An overlay in the unused bits of the pixels goes on in a syntax that keeps them, and in no other."""
    ds = dcmread(test_file("MR_small.dcm"))
    values = np.frombuffer(ds.PixelData, "<u2").copy()
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    values = values & 0x0FFF | 0x8000
    ds.PixelData = values.tobytes()
    ds.save_as(tmp_path / "bits.dcm")
    made = transcoded(tmp_path / "bits.dcm", tmp_path / "copy.dcm", JPEG_LS, JPEG_2000, IMPLICIT)
    assert made["syntax"] == IMPLICIT
    assert dcmread(tmp_path / "copy.dcm").PixelData == values.tobytes()


@pytest.mark.parametrize("to", [JPEG_LS_NEAR, LOSSY_JPEG_2000])
def test_a_lossy_copy_is_another_image_and_a_valid_one(to: str, tmp_path: Path) -> None:
    """New UIDs, always the same; what was done and of what; and dciodvfy finds nothing that the original lacks."""
    source, out = test_file("CT_small.dcm"), tmp_path / "copy.dcm"
    assert transcoded(source, out, to)["syntax"] == to
    first = out.read_bytes()
    transcoded(source, out, to)
    assert out.read_bytes() == first
    one, two = dcmread(source), dcmread(out)
    assert two.SOPInstanceUID == two.file_meta.MediaStorageSOPInstanceUID != one.SOPInstanceUID
    assert two.SeriesInstanceUID != one.SeriesInstanceUID and two.StudyInstanceUID == one.StudyInstanceUID
    assert two.ImageType == ["DERIVED", *one.ImageType[1:]]
    assert (two.LossyImageCompression, two.DerivationCodeSequence[0].CodeMeaning) == (
        "01",
        "Lossy Compression",
    )
    assert two.SourceImageSequence[-1].ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert two.PatientName == one.PatientName
    known = {line.strip() for line in peers.dciodvfy(source)}
    assert {line.strip() for line in peers.dciodvfy(out)} <= known


# --- the process


@pytest.fixture
def start() -> Iterator[Callable[..., Transcodings]]:
    """Start the conductor's side of it, with its child."""
    begun: list[Transcodings] = []

    def make(memory: int = 4 * 10**9, **changes: Any) -> Transcodings:
        begun.append(Transcodings(memory, **changes))
        return begun[-1]

    yield make
    for one in begun:
        one.child.kill()


def copying(source: Path, out: Path, *to: str, number: int = 1) -> Copying:
    """A copy that is wanted."""
    return Copying(number, 1, "PACS", {}, source, out, asked(source, out, *to))


def worked(one: Transcodings, count: int, seconds: float = 60.0) -> list[Made]:
    """What the child made of the queue."""
    found: list[Made] = []
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        one.work(time.monotonic())
        one.listen(time.monotonic())
        found += one.made()
        time.sleep(0.01)
    return found


def bomb(folder: Path) -> Path:
    """A few hundred bytes that say to be 8 GB of pixels."""
    ds = dcmread(test_file("MR_small_RLE.dcm"))
    ds.Rows = ds.Columns = 65000
    header = struct.pack("<16I", 2, 64, 66, *[0] * 13)
    ds.PixelData = encapsulate([header + b"\x81\x00" * 200])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(folder / "bomb.dcm")
    return folder / "bomb.dcm"


def test_a_bomb_costs_one_object(start: Callable[..., Transcodings], tmp_path: Path) -> None:
    """What unfolds to more than it may take is refused in words, and the next object is transcoded."""
    one = start(memory=1_500_000_000)
    good = test_file("MR_small_RLE.dcm")
    one.feed(
        [copying(bomb(tmp_path), tmp_path / "1.dcm", IMPLICIT), copying(good, tmp_path / "2.dcm", IMPLICIT)],
        0,
    )
    first, second = worked(one, 2)
    assert "out of memory" in first.failed and not (tmp_path / "1.dcm").exists()
    assert (second.syntax, second.failed) == (IMPLICIT, "")


def test_a_hang_costs_one_object(start: Callable[..., Transcodings], tmp_path: Path) -> None:
    """A transcoder that does not answer in time is killed, twice; then its object is given up, and others go on."""
    good = test_file("MR_small_RLE.dcm")
    one = start(patience=1.0)
    one.feed([copying(good, tmp_path / f"{n}.dcm", IMPLICIT, number=n) for n in (1, 2)], time.monotonic())
    stopped: set[int] = set()
    found: list[Made] = []
    until = time.monotonic() + 60
    while len(found) < 2 and time.monotonic() < until:
        one.work(time.monotonic())
        process = one.child.process
        if process is not None and len(stopped) < 2 and process.pid not in stopped:
            os.kill(process.pid, signal.SIGSTOP)  # it can neither answer nor end
            stopped.add(process.pid)
        one.listen(time.monotonic())
        found += one.made()
        one.patience = 60.0 if found else 1.0
        time.sleep(0.01)
    assert [made.copying.delivery for made in found] == [1, 2]
    assert "took more than" in found[0].failed and found[1].syntax == IMPLICIT


def test_a_disk_that_takes_nothing_parks_nothing(start: Callable[..., Transcodings], tmp_path: Path) -> None:
    """A copy that cannot be written is wanted again later; the object is not to blame."""
    (tmp_path / "out").mkdir()
    one = start()
    wanted = copying(test_file("MR_small_RLE.dcm"), tmp_path / "out" / "1.dcm", IMPLICIT)
    (tmp_path / "out" / "1.dcm").mkdir()  # a name that cannot be taken, for root too
    one.feed([wanted], 0)
    assert worked(one, 1, 8) == [] and not one.queue
    assert not one.hungry(time.monotonic()) and one.hungry(time.monotonic() + 61)


def test_an_urgent_copy_overtakes_those_that_wait(tmp_path: Path) -> None:
    """News replaces the queue, in the order in which copies are wanted now; the one under way stays first."""
    one = Transcodings(10**9)
    source = test_file("CT_small.dcm")
    copies = [copying(source, tmp_path / f"{n}.dcm", IMPLICIT, number=n) for n in range(4)]
    one.feed(copies[:3], 0.0)
    one._asked_at = 0.0
    assert not one.hungry(1.0)
    one.wanted()
    assert one.hungry(1.0)
    one.feed([copies[3], *copies[:3]], 1.0)
    assert [made.delivery for made in one.queue] == [0, 3, 1, 2] and not one.hungry(1.0)


def test_a_treated_object_keeps_its_pixels_and_its_syntax(tmp_path: Path) -> None:
    """Whatever the syntax: what the rule names is changed, all else is byte for byte what it was."""
    treatment = {"edit": {"changes": [{"op": "set", "path": "StudyID", "value": "77"}], "reason": "CORRECT"}}
    about = {"received": True, "at": "2026-03-01T13:00:00+01:00", "from": "CT01", "system": "PACSNode"}
    ours = {"StudyID", "OriginalAttributesSequence", "InstanceCoercionDateTime", ""}
    for name in (*IMAGES, "test-SR.dcm", "MR_small_jpeg_ls_lossless.dcm", "rtdose.dcm"):
        source, out = test_file(name), tmp_path / "copy.dcm"
        request = {**asked(source, out), "treatment": treatment, "about": about, "key": "k"}
        made = answer(json.dumps(request))
        one, two = dcmread(source), dcmread(out)
        native = one.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
        assert made["syntax"] == (EXPLICIT if native else one.file_meta.TransferSyntaxUID), (name, made)
        assert two.StudyID == "77" and two.SOPInstanceUID == one.SOPInstanceUID
        if "PixelData" in one:
            assert np.array_equal(one.pixel_array, two.pixel_array), name
        for tag in said(one):
            if keyword_for_tag(tag) not in ours and one[tag].VR != "SQ":
                assert two[tag].value == one[tag].value, (name, tag)
        again = out.read_bytes()
        answer(json.dumps(request))
        assert out.read_bytes() == again


def test_a_derived_object_must_still_pass_the_gate(tmp_path: Path) -> None:
    """An edit that leaves a derived object invalid is refused in words; a received one is not gated."""
    edit = [{"op": "set", "path": "StudyID", "value": "é" * 3}]
    ds = dcmread(test_file("CT_small.dcm"))
    for tag in [t for t in ds.keys() if t.is_private]:  # noqa: SIM118 - no conversion
        del ds[tag]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "one"
    ds.ProcedureCodeSequence = [code]
    ds.save_as(tmp_path / "derived.dcm")
    about = {"received": False, "at": "", "from": "", "system": "PACSNode"}
    request = {
        **asked(tmp_path / "derived.dcm", tmp_path / "copy.dcm"), "about": about, "key": "k",
        "treatment": {"edit": {"changes": edit}},
    }  # fmt: skip
    assert "syntax" in answer(json.dumps(request))
    assert "OriginalAttributesSequence" not in dcmread(tmp_path / "copy.dcm")
    empty = {"op": "set", "path": "ProcedureCodeSequence[0].CodeMeaning", "value": ""}
    request["treatment"]["edit"]["changes"] = [empty]
    told = answer(json.dumps(request))["failed"]
    assert "no valid DICOM any more: ProcedureCodeSequence.CodeMeaning is empty (type 1)" in told
    received = {**about, "received": True, "at": "2026-03-01T13:00:00+01:00"}
    assert "syntax" in answer(json.dumps({**request, "about": received}))
    request["treatment"] = {"unheard_of": {}}
    assert (
        "this version cannot do what its rule asked for: unheard_of" in answer(json.dumps(request))["failed"]
    )
