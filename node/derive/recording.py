"""Recording → a waveform object of the source's own class, or a wider one where it does not fit (PS3.3 A.34)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom.dataset import Dataset

from node.derive import references
from node.derive.charset import settle_charset
from node.derive.derivation import derivation
from node.derive.geometry import decimal
from node.derive.making import Making, code_item, with_file_meta
from node.derive.samples import Step, bits_for, step_of
from node.derive.standard import roots
from node.derive.waveforms import ECG, LIMITS, WIDER
from node.errors import Broken, Refused
from node.model import Code
from node.operator import NO_UNITS, Channel, Recording, Waveform

_ENTITIES = ("Patient", "Study", "Series", "Frame of Reference", "Equipment", "Waveform")
_OURS = frozenset({
    "InstanceNumber", "ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "SeriesNumber",
    "SeriesInstanceUID", "SeriesDescription", "SeriesDescriptionCodeSequence", "SOPInstanceUID",
    "SOPClassUID", "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID",
    "ContributingEquipmentSequence", "SpecificCharacterSet", "RelatedSeriesSequence", "WaveformSequence",
    "ReferencedInstanceSequence",
})  # fmt: skip
"""What this module decides itself."""
_VOID = frozenset({
    "WaveformAnnotationSequence", "WaveformPresentationGroupSequence", "WaveformDataDisplayScale",
    "WaveformDisplayBackgroundCIELabValue",
})  # fmt: skip
"""What names channels and samples of the source, and need not be true of ours."""
_MOST_BYTES = 0xFFFFFFFE
"""Length of an explicit OW element (PS3.5 7.1.2)."""


def recordings(making: Making, recording: Recording) -> list[Dataset]:
    """Make the one waveform object of *recording*, ready to be written.

    Samples are the source's own steps where the values still are such, else the finest that 16 bits allow;
    32 bits where those would be coarser than the source's. Raises Refused where the sources are no
    waveforms or no class holds the recording, Broken where a channel does not say what it is.
    """
    return [_Object(making, recording).dataset()]


@dataclass(frozen=True)
class _Object:
    making: Making
    recording: Recording

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The source's channels' steps."""
        definitions = _definitions(self.making.sources.headers)
        return tuple(dict.fromkeys(step for definition in definitions for step in _source_step(definition)))

    @cached_property
    def wanted_bits(self) -> int:
        pairs = (
            (c.unit.value, row)
            for g in self.recording.groups
            for c, row in zip(g.channels, g.array, strict=True)
        )
        return max((bits_for(unit, row, self.steps) for unit, row in pairs), default=16)

    @cached_property
    def storage(self) -> tuple[str, int]:
        """SOP class and bits per sample."""
        source, name = self.making.sources.sop_class, self.making.output.name
        if source not in LIMITS:
            raise Refused(
                f"output {name}: recordings are made of waveforms only, the source's class is {source}"
            )
        why: list[str] = []
        for sop_class in dict.fromkeys((source, *(WIDER if source in ECG else ()))):
            limits = LIMITS[sop_class]
            misfit = limits.misfit(self.recording) or (sop_class != source and self._unnamed(sop_class))
            if not misfit and max(limits.bits) < self.wanted_bits:
                misfit = f"values that need {self.wanted_bits} bits, {max(limits.bits)} are allowed"
            if not misfit:
                return sop_class, max(min(limits.bits), self.wanted_bits)
            why.append(misfit)
        raise Refused(f"output {name}: no waveform class holds it: {'; '.join(why)}")

    def _unnamed(self, sop_class: str) -> str:
        """What another class demands to know of the recorder and the source does not say (C.7.5.2)."""
        missing = [
            keyword
            for keyword, row in roots(sop_class).items()
            if row.entity == "Equipment"
            and row.required
            and row.type == "1"
            and not self.making.sources.text(keyword)
        ]
        return (
            f"the source does not state {', '.join(missing)}, which the wider class demands"
            if missing
            else ""
        )

    def dataset(self) -> Dataset:
        making, (sop_class, bits) = self.making, self.storage
        dataset = making.sources.inherit(sop_class).common(_ENTITIES, _OURS | _VOID)
        making.stamp(dataset, sop_class, 1)
        making.describe(dataset)
        dataset.ReferencedInstanceSequence = references.items(
            making.sources, range(len(making.sources.headers))
        )
        dataset.WaveformSequence = [self._group(place, bits) for place in range(len(self.recording.groups))]
        return with_file_meta(settle_charset(dataset, making.sources), making.job.provenance.software)

    def _group(self, place: int, bits: int) -> Dataset:
        group = self.recording.groups[place]
        channels, samples = group.array.shape
        if group.array.size * bits // 8 > _MOST_BYTES:
            raise Broken(f"output {self.making.output.name}: group {place + 1} is larger than 4 GiB")
        item = Dataset()
        if group.offset or self.making.sources.text("AcquisitionTimeSynchronized") == "Y":
            item.MultiplexGroupTimeOffset = decimal(group.offset)
        item.WaveformOriginality = "ORIGINAL" if group.original else "DERIVED"
        item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = channels, samples
        item.SamplingFrequency = decimal(group.frequency)
        if group.label:
            item.MultiplexGroupLabel = group.label[:16]
        item.WaveformBitsAllocated = bits
        item.WaveformSampleInterpretation = "SS" if bits == 16 else "SL"
        stored = np.empty((samples, channels), np.dtype(f"<i{bits // 8}"))
        padding = np.iinfo(stored.dtype).min
        definitions = []
        for row, channel in enumerate(group.channels):
            step = self._step(group, row, bits)
            stored[:, row] = step.store(group.array[row], padding)
            definitions.append(self._channel(channel, step, group, (place, row)))
        item.ChannelDefinitionSequence = definitions
        if not np.isfinite(group.array).all():
            item.add_new("WaveformPaddingValue", "OW", padding.to_bytes(bits // 8, "little", signed=True))
        item.add_new("WaveformData", "OW", stored.tobytes())
        return item

    def _step(self, group: Waveform, row: int, bits: int) -> Step:
        channel, values = group.channels[row], group.array[row]
        if np.isinf(values).any():
            raise Broken(f"output {self.making.output.name}: channel {channel.label} holds infinite values")
        return step_of(channel.unit.value, values, self.steps, bits)

    def _channel(self, channel: Channel, step: Step, group: Waveform, at: tuple[int, int]) -> Dataset:
        if channel.source is None:
            raise Broken(
                f"output {self.making.output.name}: channel {channel.label or at[1] + 1} does not say what it "
                "measures; give it a Channel(source=...) code"
            )
        item = Dataset()
        if channel.label and channel.label != channel.source.meaning:
            item.ChannelLabel = channel.label[:16]
        item.ChannelSourceSequence = [self._code(channel.source)]
        item.ChannelSensitivity = step.size
        item.ChannelSensitivityUnitsSequence = [self._code(channel.unit)]
        item.ChannelSensitivityCorrectionFactor = "1"
        item.ChannelBaseline = step.baseline
        item.ChannelTimeSkew = decimal(self._skew(at))
        item.WaveformBitsStored = self.storage[1]
        for keyword, frequency in zip(
            ("FilterLowFrequency", "FilterHighFrequency"), channel.band, strict=True
        ):
            if frequency is not None:
                setattr(item, keyword, decimal(frequency))
        if not group.original:
            item.ChannelDerivationDescription = self._derivation
        return item

    def _code(self, code: Code) -> Dataset:
        """A code, with the version of its scheme where the sources need one to be understood (8.8)."""
        item = code_item(code)
        version = self._versions.get((code.value, code.scheme))
        if version:
            item.CodingSchemeVersion = version
        return item

    @cached_property
    def _versions(self) -> Mapping[tuple[str, str], str]:
        return {
            (str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))): str(
                item.CodingSchemeVersion
            )
            for definition in _definitions(self.making.sources.headers)
            for keyword in ("ChannelSourceSequence", "ChannelSensitivityUnitsSequence")
            for item in definition.get(keyword) or ()
            if item.get("CodingSchemeVersion")
        }

    @cached_property
    def _derivation(self) -> str:
        job, name = self.making.job, self.making.output.name
        made = derivation(job.plan, name, job.provenance.operators, reshaped=False)
        return (made.description or name)[:64]

    def _skew(self, at: tuple[int, int]) -> float:
        """Seconds, as the reader's fact `skew` tells it; an operator that keeps the facts keeps it."""
        try:
            return float(self.recording.facts["skew"][at[0]][at[1]])
        except (KeyError, IndexError, TypeError):
            return 0.0


def _definitions(headers: Sequence[Dataset]) -> Iterator[Dataset]:
    for header in headers:
        for group in header.get("WaveformSequence") or ():
            yield from group.get("ChannelDefinitionSequence") or ()


def _source_step(definition: Dataset) -> Sequence[Step]:
    units = definition.get("ChannelSensitivityUnitsSequence")
    sensitivity = definition.get("ChannelSensitivity")
    correction = definition.get("ChannelSensitivityCorrectionFactor")
    if sensitivity is None:
        return (Step(NO_UNITS.value, "1", "0"),)
    size = float(sensitivity) * (1.0 if correction in (None, "") else float(correction))
    if not units or size <= 0:
        return ()
    baseline = definition.get("ChannelBaseline")
    stated = 0.0 if baseline in (None, "") else float(baseline)
    return (Step(str(units[0].get("CodeValue", "")), decimal(size), decimal(stated)),)
