"""Reading waveforms: every sample in its physical unit, as pydicom's own reader and the cart's values have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    BasicVoiceAudioWaveformStorage,
    ExplicitVRLittleEndian,
    GeneralECGWaveformStorage,
    ImplicitVRLittleEndian,
    RoutineScalpElectroencephalogramWaveformStorage,
    generate_uid,
)
from pydicom.waveforms import multiplex_array

from node.errors import Refused
from node.model import Code
from node.operator import NO_UNITS
from node.read.companding import linear
from node.read.recording import recordings

Change = Callable[[Dataset], Any]
KINDS = {"SB": "<i1", "UB": "<u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def channel(label: str, sensitivity: str | None = "2.5", baseline: str = "10") -> Dataset:
    """A channel definition in microvolts."""
    item = Dataset()
    item.ChannelLabel = label
    item.ChannelSourceSequence = code("2:1", "MDC", "Lead I")
    if sensitivity is not None:
        item.ChannelSensitivity = sensitivity
        item.ChannelSensitivityUnitsSequence = code("uV", "UCUM", "microvolt")
        item.ChannelSensitivityCorrectionFactor = "2"
        item.ChannelBaseline = baseline
    item.ChannelSampleSkew = "0"
    item.WaveformBitsStored = 16
    item.FilterLowFrequency, item.FilterHighFrequency = "0.05", "150"
    return item


def waveform(
    folder: Path, stored: np.ndarray, kind: str = "SS", change: Change = lambda ds: None, number: int = 1
) -> Path:
    """An ECG of *stored* samples (channels, samples) at 500 Hz."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.InstanceNumber = GeneralECGWaveformStorage, generate_uid(), number
    ds.Modality, ds.AcquisitionDateTime = "ECG", "20260102030405"
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL"
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = stored.shape
    item.SamplingFrequency, item.MultiplexGroupLabel = "500", "RHYTHM"
    bits = np.dtype(KINDS.get(kind, "<u1")).itemsize * 8
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = bits, kind
    item.ChannelDefinitionSequence = [channel(f"C{k}") for k in range(len(stored))]
    data = stored.T.astype(KINDS.get(kind, "<u1")).tobytes()
    item.add_new("WaveformData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))
    ds.WaveformSequence = [item]
    change(ds)
    path = folder / f"{9 - number}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("where", ["sample", "pydicom"])
def test_a_real_ecg_equals_what_pydicom_reads(where: str) -> None:
    """Both groups of a 12-lead cart file are, in microvolts, what pydicom's multiplex_array gives."""
    path = peers.need_samples("ECG", "mortara-12lead", "anonymous_ecg.dcm")
    if where == "pydicom":
        path = Path(str(get_testdata_file("waveform_ecg.dcm")))
    loaded = next(recordings([path]))
    dataset = dcmread(path)
    assert [group.array.shape for group in loaded.value.groups] == [(12, 10000), (12, 1200)]
    for place, group in enumerate(loaded.value.groups):
        np.testing.assert_array_equal(group.array, multiplex_array(dataset, place, as_raw=False).T)
        assert group.frequency == 1000
        assert {c.unit.value for c in group.channels} == {"uV"}
    assert [group.original for group in loaded.value.groups] == [True, False]
    assert loaded.value.groups[0].channels[1].label == "Lead II"
    assert "WaveformData" not in loaded.headers[0].WaveformSequence[0]


def test_the_leads_of_a_real_ecg_obey_einthoven() -> None:
    """Lead I + lead III = lead II within the step of the samples (Einthoven's law)."""
    path = peers.need_samples("ECG", "mortara-12lead", "anonymous_ecg.dcm")
    one, two, three = next(recordings([path])).value.groups[0].array[:3]
    assert np.abs(one + three - two).max() <= 2 * 1.25


def test_what_the_cart_measured_is_told_as_facts() -> None:
    """The cart's RR of 982 ms and QRS of 75 ms (its printed values) stand in the annotations, with units."""
    path = peers.need_samples("ECG", "mortara-12lead", "anonymous_ecg.dcm")
    said = next(recordings([path])).value.facts["annotations"]
    found = {a["name"].meaning: (a["value"], a["unit"].value) for a in said if a["name"] and a["unit"]}
    assert found["RR Interval"] == (982.0, "ms")
    assert found["QRS Duration"] == (75.0, "ms")


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_sample_kind_is_scaled_by_its_channel(tmp_path: Path, kind: str) -> None:
    """Sample x sensitivity x correction + baseline (PS3.3 C.10.9.1.4), to the ends of each kind's range."""
    limits = np.iinfo(KINDS[kind])
    stored = np.array([[limits.min, 0, limits.max], [1, 2, 3]])
    group = next(recordings([waveform(tmp_path, stored, kind)])).value.groups[0]
    np.testing.assert_allclose(group.array, stored * 2.5 * 2 + 10, rtol=1e-15)
    assert group.channels[0].band == (0.05, 150.0)
    assert group.channels[0].source == Code("2:1", "MDC", "Lead I")


def test_mu_law_and_a_law_are_those_of_g711() -> None:
    """Decoder output values of ITU-T G.711, tables 1a, 1b, 2a and 2b, at both ends and around zero."""
    mu = np.array([0x80, 0x00, 0xFF, 0x7F, 0xEF, 0x8F, 0xFE], np.uint8)
    assert linear(mu, "MB").tolist() == [8031, -8031, 0, 0, 33, 4191, 2]
    a = np.array([0xD5, 0x55, 0xAA, 0x2A, 0xD4], np.uint8)
    assert linear(a, "AB").tolist() == [1, -1, 4032, -4032, 3]


@given(st.integers(0, 255))
def test_companding_is_odd_and_grows(value: int) -> None:
    """The sign bit alone changes the sign, and louder codes are louder samples (ITU-T G.711)."""
    code = np.array([value, value ^ 0x80], np.uint8)
    for kind in ("MB", "AB"):
        one, other = linear(code, kind).tolist()
        assert one == -other


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_is_not_a_number(tmp_path: Path, syntax: str) -> None:
    """Samples that hold the Waveform Padding Value are NaN, all others stay, in either encoding."""

    def pad(ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.WaveformSequence[0].add_new("WaveformPaddingValue", "OW", np.int16(-32768).tobytes())

    stored = np.array([[1, -32768, 3, -32768]])
    values = next(recordings([waveform(tmp_path, stored, change=pad)])).value.groups[0].array
    np.testing.assert_array_equal(values, [[15.0, np.nan, 25.0, np.nan]])


def test_samples_without_sensitivity_have_no_unit(tmp_path: Path) -> None:
    """Without Channel Sensitivity the samples stay what they are, in no units, and none is made up."""

    def bare(ds: Dataset) -> None:
        ds.WaveformSequence[0].ChannelDefinitionSequence = [channel("A", sensitivity=None)]

    group = next(recordings([waveform(tmp_path, np.array([[5, 6]]), change=bare)])).value.groups[0]
    assert group.channels[0].unit == NO_UNITS
    assert group.array.tolist() == [[5.0, 6.0]]


def test_skew_is_told_in_seconds(tmp_path: Path) -> None:
    """A channel sampled two samples late at 500 Hz is 4 ms late (C.10.9.1.4.3), and the facts say so."""

    def late(ds: Dataset) -> None:
        ds.WaveformSequence[0].ChannelDefinitionSequence[1].ChannelSampleSkew = "2"

    found = next(recordings([waveform(tmp_path, np.ones((2, 4)), change=late)])).value
    assert found.facts["skew"] == ((0.0, 0.004),)


def _set(keyword: str, value: object) -> Change:
    return lambda ds: setattr(ds.WaveformSequence[0], keyword, value)


def _channel(keyword: str, value: object) -> Change:
    return lambda ds: setattr(ds.WaveformSequence[0].ChannelDefinitionSequence[0], keyword, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ds: setattr(ds, "SOPClassUID", BasicVoiceAudioWaveformStorage), "speech or sound"),
        (lambda ds: delattr(ds, "WaveformSequence"), "no waveforms"),
        (_set("SamplingFrequency", None), "time axis"),
        (_set("WaveformSampleInterpretation", "XX"), "C.10.9.1.5"),
        (_set("WaveformBitsAllocated", 32), "SS of 32 bits"),
        (_set("NumberOfWaveformSamples", 400), "bytes of samples"),
        (_set("ChannelDefinitionSequence", []), "channel definitions"),
        (_channel("ChannelSensitivity", "0"), "0 per step"),
        (_channel("ChannelSensitivityUnitsSequence", []), "without units"),
        (_channel("ChannelSensitivityUnitsSequence", code("x", "99ME", "mine")), "not UCUM"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(tmp_path: Path, change: Change, words: str) -> None:
    """Missing time axis, scale, unit or samples are refused and named, never guessed."""
    with pytest.raises(Refused, match=words):
        next(recordings([waveform(tmp_path, np.arange(8).reshape(2, 4), change=change)]))


def test_a_refused_recording_leaves_the_next_one(tmp_path: Path) -> None:
    """The second of three is sound: it raises at its turn, the third is read; EEG classes are, too."""
    paths = [
        waveform(tmp_path, np.array([[k, k]]), number=k, change=lambda ds, k=k: setattr(
            ds, "SOPClassUID",
            BasicVoiceAudioWaveformStorage if k == 2 else RoutineScalpElectroencephalogramWaveformStorage,
        ))
        for k in (3, 2, 1)
    ]  # fmt: skip
    found = recordings(paths)
    assert next(found).value.groups[0].array[0, 0] == 15.0
    with pytest.raises(Refused):
        next(found)
    assert next(found).value.groups[0].array[0, 0] == 25.0
