"""Which recordings a waveform class may hold: the content constraints of PS3.3 A.34."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.uid import (
    AmbulatoryECGWaveformStorage,
    ArterialPulseWaveformStorage,
    BodyPositionWaveformStorage,
    CardiacElectrophysiologyWaveformStorage,
    ElectromyogramWaveformStorage,
    ElectrooculogramWaveformStorage,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    HemodynamicWaveformStorage,
    MultichannelRespiratoryWaveformStorage,
    RespiratoryWaveformStorage,
    RoutineScalpElectroencephalogramWaveformStorage,
    SleepElectroencephalogramWaveformStorage,
    TwelveLeadECGWaveformStorage,
)

from node.operator import Recording


@dataclass(frozen=True)
class Limits:
    """What a waveform class may hold (the content constraints of PS3.3 A.34); None is no limit."""

    groups: int | None = None
    channels: int | None = None
    samples: int | None = None
    frequency: tuple[float, float] = (0.0, float("inf"))
    """Hz."""
    bits: tuple[int, ...] = (16,)

    def misfit(self, recording: Recording) -> str:
        """Say why *recording* does not fit, empty where it does."""
        if self.groups and len(recording.groups) > self.groups:
            return f"{len(recording.groups)} multiplex groups, {self.groups} are allowed"
        for group in recording.groups:
            channels, samples = group.array.shape
            low, high = self.frequency
            if self.channels and channels > self.channels:
                return f"{channels} channels in a group, {self.channels} are allowed"
            if self.samples and samples > self.samples:
                return f"{samples} samples per channel, {self.samples} are allowed"
            if not low <= group.frequency <= high:
                return f"{group.frequency:g} samples per second, {low:g} to {high:g} are allowed"
        return ""


_EITHER = (16, 32)
"""Waveform Sample Interpretation SS or SL, at any sampling frequency."""
LIMITS: Mapping[str, Limits] = {
    TwelveLeadECGWaveformStorage: Limits(5, 13, 16384, (200, 1000)),  # A.34.3.4
    GeneralECGWaveformStorage: Limits(4, 24, None, (200, 1000)),  # A.34.4.4
    AmbulatoryECGWaveformStorage: Limits(1, 12, None, (50, 1000)),  # A.34.5.4
    General32bitECGWaveformStorage: Limits(4, 24, bits=(32,)),  # Supplement 237
    HemodynamicWaveformStorage: Limits(4, 8, None, (0, 400)),  # A.34.6.4
    CardiacElectrophysiologyWaveformStorage: Limits(4, None, None, (0, 20000)),  # A.34.7.4
    ArterialPulseWaveformStorage: Limits(1, 1, None, (0, 600)),  # A.34.8.4
    RespiratoryWaveformStorage: Limits(1, 1, None, (0, 100)),  # A.34.9.4
    MultichannelRespiratoryWaveformStorage: Limits(bits=_EITHER),
    RoutineScalpElectroencephalogramWaveformStorage: Limits(1, 64, bits=_EITHER),
    ElectromyogramWaveformStorage: Limits(None, 64, bits=_EITHER),
    ElectrooculogramWaveformStorage: Limits(bits=_EITHER),
    SleepElectroencephalogramWaveformStorage: Limits(None, 64, bits=_EITHER),
    BodyPositionWaveformStorage: Limits(bits=_EITHER),
}
ECG = (TwelveLeadECGWaveformStorage, GeneralECGWaveformStorage, AmbulatoryECGWaveformStorage)
"""Classes of electrocardiograms with limits of their own."""
WIDER = (GeneralECGWaveformStorage, General32bitECGWaveformStorage)
"""Where an electrocardiogram goes that does not fit its source's class."""
