"""Reading scintigrams: head, window, view, phase, moment and duration of each frame, as stated and never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from node.operator import Picture
from node.read.nuclear_facts import dynamic_times, nuclear_facts
from node.read.picture import pictures
from node.testing import (
    Phase,
    Series,
    kidney_frames,
    lung_frames,
    nuclear_picture,
    sphere_volume,
    write_nm_image,
    write_nm_tomo,
)

BOTH = ("anterior", "posterior")
PHASES = (Phase(3, 1000.0, pause=500.0), Phase(2, 4000.0, delay=2500.0))


def read(paths: Sequence[Path]) -> Picture:
    """The one picture."""
    return next(pictures(paths)).value


def dynamic(phases: Sequence[Phase] = PHASES, heads: int = 1) -> Dataset:
    """The header of a dynamic study."""
    each = sum(phase.frames for phase in phases)
    ds = Dataset()
    ds.Modality, ds.ImageType = "NM", ["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"]
    ds.DetectorVector = [head for head in range(1, heads + 1) for _ in range(each)]
    ds.PhaseVector = [n for n, phase in enumerate(phases, 1) for _ in range(phase.frames)] * heads
    ds.TimeSliceVector = [n + 1 for phase in phases for n in range(phase.frames)] * heads
    ds.PhaseInformationSequence = []
    for phase in phases:
        item = Dataset()
        item.NumberOfFramesInPhase, item.ActualFrameDuration = phase.frames, int(phase.duration)
        item.PauseBetweenFrames, item.PhaseDelay = int(phase.pause), int(phase.delay)
        ds.PhaseInformationSequence.append(item)
    return ds


@pytest.mark.parametrize(
    ("frames", "views", "phases", "kind"),
    [
        (lung_frames(), BOTH, (), ""),
        (lung_frames(), BOTH, (), "WHOLE BODY"),
        (kidney_frames(PHASES), ("posterior",), PHASES, ""),
        (np.concatenate([kidney_frames(PHASES)] * 2), BOTH, PHASES, ""),
    ],
)
def test_planar_images_are_read_with_what_their_frames_say(
    tmp_path: Path, frames: Any, views: tuple[str, ...], phases: tuple[Phase, ...], kind: str
) -> None:
    """Static, whole body and dynamic studies of one head and of two: counts, times, and every fact of each frame."""
    found = read(write_nm_image(tmp_path, frames, views, phases=phases, kind=kind))
    wanted = nuclear_picture(frames, views, phases=phases, kind=kind)
    assert np.array_equal(found.array, wanted.array)
    assert (found.unit, found.spacing, found.plane) == (wanted.unit, wanted.spacing, wanted.plane)
    assert {name: found.facts[name] for name in wanted.facts} == wanted.facts
    if wanted.times is None:
        assert found.times is None
    else:
        assert np.array_equal(found.times, wanted.times)
        assert found.facts["times_from"] == "PhaseInformationSequence"


def test_what_only_files_say(tmp_path: Path) -> None:
    """Collimators, window names, nuclide and row directions stand beside the frames."""
    facts = read(write_nm_image(tmp_path, lung_frames(), BOTH)).facts
    assert facts["collimators"] == ("PARA", "PARA")
    assert facts["energy_window_names"] == ("Tc99m", "Tc99m")
    assert facts["radionuclides"] == ("^99m^Technetium",)
    assert facts["row_directions"] == ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0))


def test_pauses_and_delays_make_the_moments_of_frames() -> None:
    """Three frames of 1 s with pauses of 0.5 s, then after 2.5 s two of 4 s (PS3.3 C.8.4.14): by hand."""
    times = dynamic_times(dynamic(), 5)
    assert times is not None
    assert times.tolist() == [0, 1500, 3000, 6500, 10500]
    assert nuclear_facts(dynamic(), 5)["frame_durations"] == (1000, 1000, 1000, 4000, 4000)


def test_time_slices_may_count_on_through_the_phases() -> None:
    """Cameras that do not begin with 1 in the second phase mean the same moments."""
    header = dynamic()
    header.TimeSliceVector = [1, 2, 3, 4, 5]
    assert np.array_equal(dynamic_times(header, 5), dynamic_times(dynamic(), 5))  # type: ignore[arg-type]


def test_heads_see_the_same_moments() -> None:
    """Frames of two heads have the times of their time slices, twice."""
    times = dynamic_times(dynamic(heads=2), 10)
    assert times is not None
    assert times.tolist() == [0, 1500, 3000, 6500, 10500] * 2


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: delattr(ds, "PhaseVector"),
        lambda ds: delattr(ds, "TimeSliceVector"),
        lambda ds: delattr(ds, "PhaseInformationSequence"),
        lambda ds: setattr(ds, "PhaseVector", [1, 1, 1, 2, 3]),
        lambda ds: setattr(ds, "TimeSliceVector", [1, 2, 2, 1, 2]),
        lambda ds: setattr(ds, "TimeSliceVector", [1, 2, 4, 1, 2]),
        lambda ds: setattr(ds.PhaseInformationSequence[0], "NumberOfFramesInPhase", 4),
        lambda ds: setattr(ds.PhaseInformationSequence[1], "ActualFrameDuration", 0),
        lambda ds: delattr(ds.PhaseInformationSequence[1], "PauseBetweenFrames"),
        lambda ds: setattr(ds.PhaseInformationSequence[1], "PhaseDelay", None),
        lambda ds: setattr(ds, "Modality", "US"),
    ],
)
def test_moments_are_never_guessed(change: Any) -> None:
    """Where a vector, a phase, a duration, pause or delay is missing, or they disagree, there are no times."""
    header = dynamic()
    change(header)
    assert dynamic_times(header, 5) is None


def test_views_are_never_taken_from_names(tmp_path: Path) -> None:
    """An Image ID and a description that say ANT and POST make no views, and a head without code says nothing."""
    series = Series("named", description="LUNG ANT POST", changes={"ImageID": "ANT"})
    facts = read(write_nm_image(tmp_path, lung_frames(), ("", ""), series=series)).facts
    assert facts["image_id"] == "ANT"
    assert "views" not in facts
    assert "view_codes" not in facts
    one = read(write_nm_image(tmp_path, lung_frames(), ("posterior", ""), series=Series("one"))).facts
    assert one["view_codes"] == ("399001007", "")


@pytest.mark.parametrize(("old", "new"), [("G-5215", "399321004"), ("G-5216", "399001007"), ("X", "X")])
def test_older_codes_of_views_are_understood(tmp_path: Path, old: str, new: str) -> None:
    """SNOMED-RT's anterior and posterior projection are those of CT; an unknown code stays what it is."""
    paths = write_nm_image(tmp_path, lung_frames()[:1], ("anterior",))
    header = dcmread(paths[0])
    header.DetectorInformationSequence[0].ViewCodeSequence[0].CodeValue = old
    assert nuclear_facts(header, 1)["view_codes"] == (new,)


def test_vectors_that_do_not_fit_the_frames_say_nothing() -> None:
    """A vector of another length, or with a head that is not described, gives its frames nothing."""
    header = dynamic()
    header.DetectorVector = [1, 1, 1]
    assert "detectors" not in nuclear_facts(header, 5)
    header.DetectorVector, header.DetectorInformationSequence = [1, 1, 1, 1, 2], [Dataset()]
    header.DetectorInformationSequence[0].CollimatorType = "PARA"
    assert nuclear_facts(header, 5)["collimators"] == ("PARA", "PARA", "PARA", "PARA", "")


def test_one_head_needs_no_vector() -> None:
    """Where the image has one head and one window, all frames are of these."""
    header = Dataset()
    header.Modality, header.NumberOfDetectors, header.NumberOfEnergyWindows = "NM", 1, 2
    facts = nuclear_facts(header, 3)
    assert facts["detectors"] == (1, 1, 1)
    assert "energy_windows" not in facts


def test_gates_are_told_by_frame_and_have_no_duration(tmp_path: Path) -> None:
    """Frames of a gated study have their slot; their time in the heart beat is no time of acquisition."""
    frames = np.concatenate([lung_frames()[:1]] * 4)
    found = read(write_nm_image(tmp_path, frames, ("anterior",), kind="GATED"))
    assert found.facts["time_slots"] == (1, 2, 3, 4)
    assert found.facts["rr_intervals"] == (1, 1, 1, 1)
    assert "frame_durations" not in found.facts
    assert found.times is None


def test_reconstructed_slices_have_no_duration(tmp_path: Path) -> None:
    """Slices of a tomogram took no time of their own, though the projections of its rotation did."""
    paths = write_nm_tomo(tmp_path, sphere_volume(inside=500, outside=10))
    found = read(paths)
    assert found.facts["frame_kind"] == "RECON TOMO"
    assert "frame_durations" not in found.facts
    header = dcmread(paths[0])
    header.ImageType = ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]
    header.RotationVector = [1] * len(found.array)
    assert nuclear_facts(header, len(found.array))["frame_durations"][0] == 20000


def test_other_modalities_have_no_such_facts() -> None:
    """A radiograph is asked for none of this."""
    header = Dataset()
    header.Modality, header.DetectorVector = "DX", [1]
    assert nuclear_facts(header, 1) == {}


def test_the_bone_scan_says_what_it_counted() -> None:
    """The WG04 sample is a capture without views; its counts, duration and kind stand in the header."""
    path = peers.need_samples("NM", "bone-scan-wg04", "NM1_J2KR")
    found = read([path])
    assert found.facts["sop_class"] == SecondaryCaptureImageStorage
    assert found.facts["counts_accumulated"] == found.array.sum(dtype=float) == 3596452
    assert found.facts["frame_durations"] == (1210434.0,)
    assert found.facts["frame_kind"] == "WHOLE BODY"
    assert "views" not in found.facts
    assert found.unit.value == "1"
