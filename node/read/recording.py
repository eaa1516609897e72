"""Waveform objects → Recordings: every channel in its physical unit (PS3.3 C.10.9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import BasicVoiceAudioWaveformStorage, GeneralAudioWaveformStorage

from node.errors import Refused
from node.model import Code
from node.operator import NO_UNITS, Channel, Recording, Waveform
from node.read.companding import linear
from node.read.loaded import Loaded, Part
from node.read.objects import code_of, in_order, items, kind_of, loaded, number, text, whole

_AUDIO = (BasicVoiceAudioWaveformStorage, GeneralAudioWaveformStorage)
_TYPES = {"SB": "i1", "UB": "u1", "MB": "u1", "AB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4",
          "SV": "i8", "UV": "u8"}  # fmt: skip
"""Waveform Sample Interpretation (C.10.9.1.5) → numpy, without byte order."""


def recordings(paths: Sequence[Path]) -> Iterator[Loaded[Recording]]:
    """One Recording per waveform object (PS3.3 A.34), by Instance Number.

    Raises Refused for an object that is none, when its turn comes; the next one can still be read.
    """
    return map(loaded, parts(paths))


def parts(paths: Sequence[Path]) -> list[Part[Recording]]:
    """The same, each still to be loaded. Raises Refused where there is none, Broken where a file is gone."""
    return [Part("", partial(_recording, path)) for path in in_order(paths)]


def _recording(path: Path) -> Loaded[Recording]:
    header = whole(path)
    if header.get("SOPClassUID") in _AUDIO:
        raise Refused(f"{kind_of(header)} is speech or sound; recordings of physiological signals are read")
    found = items(header, "WaveformSequence")
    if not found:
        raise Refused(f"{kind_of(header)} holds no waveforms")
    little = header.original_encoding[1] is not False
    groups = tuple(_group(item, place, little) for place, item in enumerate(found, 1))
    recording = Recording(groups, _facts(header, found))
    for item in found:
        item.pop("WaveformData", None)
    return Loaded(recording, (header,), (0,))


def _group(item: Dataset, place: int, little: bool) -> Waveform:
    frequency = number(item, "SamplingFrequency")
    if frequency is None or not frequency > 0:
        raise Refused(f"SamplingFrequency of multiplex group {place} is missing, so its time axis is unknown")
    stored = _samples(item, place, little)
    definitions = items(item, "ChannelDefinitionSequence")
    if len(definitions) != len(stored):
        raise Refused(
            f"multiplex group {place} has {len(stored)} channels and {len(definitions)} channel definitions"
        )
    padding = _padding(item, little)
    array = np.empty(stored.shape, np.float64)
    channels = []
    for row, definition in enumerate(definitions):
        channel, scale, baseline = _channel(definition, f"channel {row + 1} of multiplex group {place}")
        array[row] = _values(stored[row], item) * scale + baseline
        if padding is not None:
            array[row, stored[row] == padding] = np.nan
        channels.append(channel)
    return Waveform(
        array,
        frequency,
        tuple(channels),
        text(item, "MultiplexGroupLabel"),
        text(item, "WaveformOriginality") != "DERIVED",
        number(item, "MultiplexGroupTimeOffset") or 0.0,
    )


def _type(item: Dataset, little: bool) -> np.dtype[Any] | None:
    known = _TYPES.get(text(item, "WaveformSampleInterpretation"))
    return None if known is None else np.dtype(known).newbyteorder("<" if little else ">")


def _samples(item: Dataset, place: int, little: bool) -> NDArray[Any]:
    """(channels, samples) as stored; the file interleaves them sample by sample (C.10.9.1.7)."""
    kind = _type(item, little)
    bits = number(item, "WaveformBitsAllocated")
    if kind is None or bits != kind.itemsize * 8:
        said = f"{text(item, 'WaveformSampleInterpretation') or 'none'} of {bits or 0:.0f} bits"
        raise Refused(
            f"the samples of multiplex group {place} are {said}, which PS3.3 C.10.9.1.5 does not know"
        )
    channels, samples = (number(item, k) for k in ("NumberOfWaveformChannels", "NumberOfWaveformSamples"))
    data = item.get("WaveformData")
    count = int((channels or 0) * (samples or 0))
    if not count or not isinstance(data, bytes) or len(data) < count * kind.itemsize:
        raise Refused(
            f"multiplex group {place} holds {len(data or b'')} bytes of samples, its channels and samples ask "
            f"for {count * kind.itemsize}"
        )
    flat = np.frombuffer(data, kind, count)
    return np.ascontiguousarray(flat.reshape(int(samples or 0), int(channels or 0)).T)


def _values(stored: NDArray[Any], item: Dataset) -> NDArray[Any]:
    return linear(stored, text(item, "WaveformSampleInterpretation"))


def _padding(item: Dataset, little: bool) -> Any:
    """Waveform Padding Value as a sample, None where the recorder did not pad."""
    kind = _type(item, little)
    data = item.get("WaveformPaddingValue")
    if kind is None or not isinstance(data, bytes) or len(data) < kind.itemsize:
        return None
    return np.frombuffer(data[: kind.itemsize], kind)[0]


def _channel(definition: Dataset, where: str) -> tuple[Channel, float, float]:
    """A channel, and what turns its samples into its unit: sample x scale + baseline (C.10.9.1.4.2)."""
    band = (number(definition, "FilterLowFrequency"), number(definition, "FilterHighFrequency"))
    label = text(definition, "ChannelLabel")
    source = code_of(definition, "ChannelSourceSequence")
    name = label or (source.meaning if source else "")
    sensitivity = number(definition, "ChannelSensitivity")
    if sensitivity is None:  # samples in no defined unit (type 1C)
        return Channel(name, source, NO_UNITS, band), 1.0, 0.0
    correction, baseline = 1.0, 0.0
    if text(definition, "ChannelSensitivityCorrectionFactor"):
        correction = number(definition, "ChannelSensitivityCorrectionFactor") or 0.0
    if text(definition, "ChannelBaseline"):
        baseline = number(definition, "ChannelBaseline") or 0.0
    scale = sensitivity * correction
    if not scale or not np.isfinite([scale, baseline]).all():
        raise Refused(f"{where}: ChannelSensitivity and its correction factor make {scale:g} per step")
    return Channel(name, source, _unit(definition, where), band), scale, baseline


def _unit(definition: Dataset, where: str) -> Code:
    unit = code_of(definition, "ChannelSensitivityUnitsSequence")
    if unit is None:
        raise Refused(f"{where} has a ChannelSensitivity without units, so what its samples mean is unknown")
    if unit.scheme != "UCUM":
        raise Refused(f"{where} is in {unit.value} of the coding scheme {unit.scheme}, which is not UCUM")
    return unit


def _facts(header: Dataset, groups: Sequence[Dataset]) -> dict[str, Any]:
    """`modality`, `sop_class`, `acquired`, `skew`, `annotations` and what else names the recording."""
    facts: dict[str, Any] = {
        "modality": text(header, "Modality"),
        "sop_class": str(header.get("SOPClassUID", "")),
        "acquired": text(header, "AcquisitionDateTime"),
        "manufacturer": text(header, "Manufacturer"),
        "model": text(header, "ManufacturerModelName"),
        "annotations": tuple(_annotation(item) for item in items(header, "WaveformAnnotationSequence")),
    }
    skew = tuple(tuple(_skew(d, g) for d in items(g, "ChannelDefinitionSequence")) for g in groups)
    if any(any(group) for group in skew):
        facts["skew"] = skew
    return {name: value for name, value in facts.items() if value not in ("", ())}


def _skew(definition: Dataset, group: Dataset) -> float:
    """Seconds by which a channel was sampled after the group's time (C.10.9.1.4.3)."""
    samples = number(definition, "ChannelSampleSkew")
    if samples is not None:
        return samples / (number(group, "SamplingFrequency") or 1.0)
    return number(definition, "ChannelTimeSkew") or 0.0


def _annotation(item: Dataset) -> Mapping[str, Any]:
    """What the recorder noted or measured: name, value, unit, text, (group, channel) … (C.10.10)."""
    channels = [int(v) for v in item.get("ReferencedWaveformChannels") or ()]
    return {
        "name": code_of(item, "ConceptNameCodeSequence"),
        "value": number(item, "NumericValue"),
        "unit": code_of(item, "MeasurementUnitsCodeSequence"),
        "code": code_of(item, "ConceptCodeSequence"),
        "text": text(item, "UnformattedTextValue"),
        "channels": tuple(zip(channels[::2], channels[1::2], strict=False)),
        "samples": tuple(int(v) for v in _many(item.get("ReferencedSamplePositions"))),
    }


def _many(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return [value] if isinstance(value, int) else list(value)
