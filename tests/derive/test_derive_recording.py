"""Waveform objects we write: every sample within half a step, in a class that allows it, valid to peers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
from derive_material import complaints, job
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    AmbulatoryECGWaveformStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    RoutineScalpElectroencephalogramWaveformStorage,
    TwelveLeadECGWaveformStorage,
)
from pydicom.waveforms import multiplex_array

from node.derive.samples import Step, bits_for, step_of
from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken, Refused
from node.model import Code
from node.operator import Channel, Recording, Waveform
from node.read.recording import recordings

UV = Code("uV", "UCUM", "microvolt")
LEAD = Code("2:1", "MDC", "Lead I")


def header(
    sop_class: str = TwelveLeadECGWaveformStorage, sensitivity: str = "2.5", **changed: Any
) -> Dataset:
    """A waveform object without samples, its one channel in microvolts."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in {
        "SOPClassUID": sop_class, "SOPInstanceUID": "1.2.3.4.1", "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4", "StudyDate": "20251230", "StudyTime": "101112", "AccessionNumber": "A1",
        "Modality": "EEG" if sop_class == RoutineScalpElectroencephalogramWaveformStorage else "ECG",
        "Manufacturer": "Phantom Works", "ReferringPhysicianName": "", "PatientName": "Müller^Jürgen",
        "SpecificCharacterSet": "ISO_IR 100", "PatientID": "P-1", "PatientBirthDate": "", "PatientSex": "M",
        "StudyID": "S1", "SeriesNumber": 1, "InstanceNumber": 1, "SeriesDescription": "Rest",
        "ContentDate": "20251230", "ContentTime": "101200", "AcquisitionDateTime": "20251230101130",
        "AcquisitionContextSequence": [], "ManufacturerModelName": "Lead 12", "DeviceSerialNumber": "7",
        "SoftwareVersions": "1", **changed,
    }.items():  # fmt: skip
        if value is not None:
            setattr(ds, keyword, value)
    units, definition, group = Dataset(), Dataset(), Dataset()
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = "uV", "UCUM", "microvolt"
    definition.ChannelSensitivity, definition.ChannelSensitivityUnitsSequence = sensitivity, [units]
    definition.ChannelSensitivityCorrectionFactor, definition.ChannelBaseline = "1", "0"
    group.ChannelDefinitionSequence = [definition]
    ds.WaveformSequence = [group]
    return ds


def recording(array: np.ndarray, frequency: float = 500.0, groups: int = 1, **changed: Any) -> Recording:
    """Groups of channels in microvolts, all with the values of *array*."""
    channels = tuple(Channel(f"C{k}", LEAD, UV, (0.05, 150.0)) for k in range(len(array)))
    group = replace(Waveform(array, frequency, channels, "RHYTHM", original=False), **changed)
    return Recording((group,) * groups)


def written(folder: Path, result: Recording, source: Dataset) -> Path:
    """The file of *result*, gated."""
    products = write({"ecg": result}, job("ecg"), Sources((source,), (0,)), folder)
    assert [product.kind for product in products] == ["recording"]
    return folder / products[0].path


def test_a_real_ecg_survives_bit_for_bit(tmp_path: Path) -> None:
    """A 12-lead file written as it was read has pydicom's raw samples of the source, and no new dciodvfy error."""
    path = peers.need_samples("ECG", "mortara-12lead", "anonymous_ecg.dcm")
    loaded = next(recordings([path]))
    products = write({"ecg": loaded.value}, job("ecg"), Sources(loaded.headers, loaded.frames), tmp_path)
    made, source = dcmread(tmp_path / products[0].path), dcmread(path)
    for place in range(2):
        np.testing.assert_array_equal(multiplex_array(made, place), multiplex_array(source, place))
    assert made.SOPClassUID == TwelveLeadECGWaveformStorage
    assert [g.WaveformOriginality for g in made.WaveformSequence] == ["ORIGINAL", "DERIVED"]
    assert made.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "WaveformAnnotationSequence" not in made
    assert complaints(tmp_path / products[0].path) <= complaints(path)


def test_a_filtered_ecg_is_within_half_a_step(tmp_path: Path) -> None:
    """Computed values go to the finest 16-bit step of each channel; pydicom reads them within half of it."""
    path = peers.need_samples("ECG", "mortara-12lead", "anonymous_ecg.dcm")
    loaded = next(recordings([path]))
    group = loaded.value.groups[0]
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(7) / 7, "same"), 1, group.array)
    smooth[:, :5] = np.nan
    result = replace(loaded.value, groups=(replace(group, array=smooth, original=False),))
    products = write({"ecg": result}, job("ecg"), Sources(loaded.headers, loaded.frames), tmp_path)
    made = tmp_path / products[0].path
    values = multiplex_array(dcmread(made), 0, as_raw=False).T[:, 5:]
    definitions = dcmread(made).WaveformSequence[0].ChannelDefinitionSequence
    steps = np.array([float(d.ChannelSensitivity) for d in definitions])
    assert (steps < 1.25).all()
    assert (np.abs(values - smooth[:, 5:]).max(axis=1) <= 0.5 * steps * (1 + 1e-6)).all()
    back = next(recordings([made])).value.groups[0]
    assert np.isnan(back.array[:, :5]).all()
    assert not back.original
    assert complaints(made) <= complaints(path)


SWING = np.vstack([np.linspace(-1000, 1000, 400) + 0.3, np.zeros(400)])


@pytest.mark.parametrize(
    ("source", "made", "expected"),
    [
        (TwelveLeadECGWaveformStorage, recording(SWING), TwelveLeadECGWaveformStorage),
        (TwelveLeadECGWaveformStorage, recording(SWING, 2000.0), General32bitECGWaveformStorage),
        (TwelveLeadECGWaveformStorage, recording(np.zeros((14, 9))), GeneralECGWaveformStorage),
        (TwelveLeadECGWaveformStorage, recording(np.zeros((1, 16385))), GeneralECGWaveformStorage),
        (AmbulatoryECGWaveformStorage, recording(SWING, 128.0), AmbulatoryECGWaveformStorage),
        (AmbulatoryECGWaveformStorage, recording(SWING, groups=2), GeneralECGWaveformStorage),
        (GeneralECGWaveformStorage, recording(SWING * 1000), General32bitECGWaveformStorage),
        (RoutineScalpElectroencephalogramWaveformStorage, recording(SWING, 2000.0),
         RoutineScalpElectroencephalogramWaveformStorage),
    ],
)  # fmt: skip
def test_the_class_is_one_that_holds_it(tmp_path: Path, source: str, made: Recording, expected: str) -> None:
    """The source's class where channels, samples and rate fit (PS3.3 A.34), else a wider one; the gate passes."""
    path = written(tmp_path, made, header(source))
    assert dcmread(path).SOPClassUID == expected
    back = next(recordings([path])).value
    for one, other in zip(made.groups, back.groups, strict=True):
        assert np.abs(one.array - other.array).max() <= 0.5 * 2.5
        assert (one.frequency, one.label, one.channels[0].band) == (
            other.frequency, other.label, other.channels[0].band,
        )  # fmt: skip
    if expected not in (General32bitECGWaveformStorage, RoutineScalpElectroencephalogramWaveformStorage):
        assert complaints(path) == set()  # dciodvfy does not know the two newer classes


def test_32_bits_keep_what_16_would_round(tmp_path: Path) -> None:
    """An EEG in steps of 1 nV over ± 1 V stays as fine as its source: signed 32-bit samples."""
    array = np.array([[-1e6, -0.001, 0.0, 0.001, 1e6]])
    path = written(
        tmp_path, recording(array), header(RoutineScalpElectroencephalogramWaveformStorage, "0.001")
    )
    group = dcmread(path).WaveformSequence[0]
    assert (group.WaveformBitsAllocated, group.WaveformSampleInterpretation) == (32, "SL")
    np.testing.assert_allclose(multiplex_array(dcmread(path), 0, as_raw=False).T, array, atol=1e-9)


@given(
    st.lists(st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=1, max_size=20),
    st.sampled_from([16, 32]),
)
def test_no_value_moves_by_more_than_half_a_step(values: list[float], bits: int) -> None:
    """Whatever the values: stored in range, and given back within half a step of the decimal string."""
    array = np.array(values)
    step = step_of("uV", array, (Step("uV", "2.5", "0"),), bits)
    stored = step.store(array, 0)
    assert np.abs(stored).max() <= 2 ** (bits - 1) - 1
    back = stored * float(step.size) + float(step.baseline)
    assert (
        np.abs(back - array).max() <= 0.5 * float(step.size) * (1 + 1e-6) + 1e-6 * np.abs(array).max() / 2**31
    )


def test_a_small_swing_far_from_zero_is_stored_around_its_middle() -> None:
    """A blood pressure of 5 mmHg around 100 uses the bits for the swing: the baseline is the middle."""
    step = step_of("mm[Hg]", np.array([97.5, 100.0, 102.5]), (), 16)
    assert float(step.baseline) == 100
    assert float(step.size) == pytest.approx(2.5 / 32767)
    assert bits_for("uV", np.array([1.0]), (Step("uV", "1", "0"),)) == 16


@pytest.mark.parametrize(
    ("source", "made", "error", "words"),
    [
        (CTImageStorage, recording(SWING), Refused, "made of waveforms only"),
        (TwelveLeadECGWaveformStorage, recording(SWING, groups=6), Refused, "6 multiplex groups, 5 are"),
        (TwelveLeadECGWaveformStorage, recording(SWING + np.inf), Broken, "infinite"),
        (TwelveLeadECGWaveformStorage, recording(SWING, channels=(Channel("X", None, UV),) * 2), Broken,
         "channel X does not say what it measures"),
    ],
)  # fmt: skip
def test_what_no_class_holds_is_said(
    tmp_path: Path, source: str, made: Recording, error: type[Exception], words: str
) -> None:
    """Sources of another kind, too many groups, infinite values and nameless channels are named, not bent."""
    with pytest.raises(error, match=words):
        written(tmp_path, made, header(source))


def test_a_wider_class_is_not_made_without_what_it_demands(tmp_path: Path) -> None:
    """General 32-bit ECG demands a device serial number; where the source has none, none is made up."""
    with pytest.raises(Refused, match=r"2000 samples per second.*DeviceSerialNumber"):
        written(tmp_path, recording(SWING, 2000.0), header(DeviceSerialNumber=None))


def test_skew_and_offset_stay(tmp_path: Path) -> None:
    """The facts' skew and a group's time offset are written, and read back."""
    made = replace(recording(SWING, offset=12.5), facts={"skew": ((0.0, 0.004),)})
    back = next(recordings([written(tmp_path, made, header())])).value
    assert back.facts["skew"] == ((0.0, 0.004),)
    assert back.groups[0].offset == 12.5


def test_a_rerun_is_the_same_bytes(tmp_path: Path) -> None:
    """Two writes of the same recording give equal files."""
    files = [written(tmp_path / name, recording(SWING), header()) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
