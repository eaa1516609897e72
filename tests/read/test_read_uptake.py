"""What PET headers say for an SUV: over the whole series, by maker, and in words where they do not."""

from __future__ import annotations

import math
from cProfile import Profile
from datetime import datetime
from pathlib import Path
from pstats import Stats
from typing import Any

import numpy as np
import pytest
from peers import need_samples
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedPETImageStorage, PositronEmissionTomographyImageStorage
from volume_phantoms import blank, code, enhanced, item, mapping, save

from node.errors import Refused
from node.model import Code
from node.read.decay import average_rate
from node.read.series import parts
from node.read.uptake import uptake_facts
from node.read.volume import load, volumes

BECQUEREL = Code("Bq/ml", "UCUM", "Becquerels/milliliter")
COUNTS = Code("{counts}", "UCUM", "Counts")
F18 = 6586.2


def dose(**changes: Any) -> Dataset:
    """A Radiopharmaceutical Information item: 370 MBq of F-18 at nine o'clock."""
    said = {
        "RadionuclideTotalDose": "370000000",
        "RadionuclideHalfLife": str(F18),
        "RadiopharmaceuticalStartTime": "090000",
        "RadionuclideCodeSequence": code("C-111A1", "SRT", "^18^Fluorine"),
        "RadiopharmaceuticalCodeSequence": code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^"),
    }
    return item(**{k: v for k, v in (said | changes).items() if v is not None})


def image(given: Dataset | None = None, **changes: Any) -> Dataset:
    """The header of one PET image whose scan began at ten o'clock."""
    said = {
        "Manufacturer": "SIEMENS",
        "SeriesDate": "20240102",
        "SeriesTime": "100000",
        "AcquisitionDate": "20240102",
        "AcquisitionTime": "100000",
        "Units": "BQML",
        "CorrectedImage": ["ATTN", "DECY", "SCAT"],
        "DecayCorrection": "START",
        "PatientWeight": "70",
        "PatientSize": "1.75",
        "PatientSex": "M",
        "RadiopharmaceuticalInformationSequence": [given or dose()],
    }
    return item(**{k: v for k, v in (said | changes).items() if v is not None})


def facts_of(*headers: Dataset, unit: Code = BECQUEREL) -> dict[str, Any]:
    """The facts of a series that is one volume."""
    return uptake_facts(headers, headers, unit)


def test_what_an_suv_needs_is_there_by_name() -> None:
    """Dose, half-life, decay from injection to scan, and the patient are facts in the units they are named with."""
    facts = facts_of(image(), image())
    expected = {
        "injected_dose": 3.7e8,
        "half_life": F18,
        "decay_time": 3600.0,
        "patient_weight": 70.0,
        "patient_size": 1.75,
        "patient_sex": "M",
        "units": "BQML",
        "corrected_image": ("ATTN", "DECY", "SCAT"),
        "decay_correction": "START",
        "given_at": datetime(2024, 1, 2, 9),
        "corrected_to": datetime(2024, 1, 2, 10),
    }
    assert expected.items() <= facts.items()
    assert (facts["tracer"].value, facts["nuclide"].value) == ("C-B1031", "C-111A1")
    assert "suv_missing" not in facts


def test_the_scan_starts_at_the_series_time_where_no_bed_was_earlier() -> None:
    """A Series Time not after the earliest Acquisition Time of all beds is what images are corrected to (QIBA)."""
    beds = [image(AcquisitionTime=time, SeriesTime="095500") for time in ("100400", "100000", "100200")]
    assert facts_of(*beds)["decay_time"] == 3300


def test_a_series_time_of_later_making_gives_way_to_the_earliest_bed() -> None:
    """Post-processed series have the time of their making: the earliest acquisition of the whole series counts."""
    beds = [
        image(AcquisitionTime=time, SeriesTime="160000", Manufacturer="OTHER")
        for time in ("100400", "100200")
    ]
    assert facts_of(*beds)["decay_time"] == 3720


def test_a_part_of_a_series_has_the_start_of_the_whole() -> None:
    """The volume of one bed position is decay corrected to the start of the scan, not of its bed."""
    beds = [
        image(AcquisitionTime=time, SeriesTime="160000", Manufacturer="X") for time in ("100200", "100400")
    ]
    assert uptake_facts(beds[1:], beds, BECQUEREL)["decay_time"] == 3720


def test_ge_says_the_start_privately() -> None:
    """Where Series Time is late, (0009,xx0D) of GEMS_PETD_01 is the start of the scan."""
    header = image(SeriesTime="160000", Manufacturer="GE MEDICAL SYSTEMS")
    header.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240102095830.00")
    assert facts_of(header)["decay_time"] == 3510


def test_siemens_is_traced_back_from_the_middle_of_each_bed() -> None:
    """A real Siemens header pair: acquired 5 us before Series Time, Frame Reference Time 59.9369 s of 120 s."""
    header = image(
        dose(RadiopharmaceuticalStartTime="114100.000000", RadionuclideTotalDose="225000000"),
        SeriesTime="123515.000000",
        AcquisitionTime="123514.999995",
        FrameReferenceTime="59936.854672596",
        ActualFrameDuration="120000",
    )
    assert facts_of(header)["decay_time"] == pytest.approx(3254.999995, abs=1e-4)


def test_siemens_beds_with_an_altered_series_time_agree_on_one_start() -> None:
    """Each bed's Acquisition Time plus average-rate time minus Frame Reference Time is the same scan start."""
    middle = average_rate(180.0, F18)
    beds = [
        image(
            SeriesTime="160000",
            AcquisitionTime=f"10{minute:02d}00",
            ActualFrameDuration="180000",
            FrameReferenceTime=f"{1000 * (60 * minute + 300 + middle):.8g}",  # from 09:55
        )
        for minute in (3, 0, 6)
    ]
    assert facts_of(*beds)["decay_time"] == pytest.approx(3300, abs=1e-3)
    beds[1].FrameReferenceTime = "1000"
    assert "FrameReferenceTime counts from different moments" in facts_of(*beds)["suv_missing"]


def test_the_average_rate_of_a_long_frame_is_before_its_middle() -> None:
    """ln(x / (1 - exp(-x))) / lambda: at the moment found, the decay curve has its mean over the frame."""
    lam, duration = math.log(2) / 1200.0, 3600.0
    mean = (1 - math.exp(-lam * duration)) / (lam * duration)
    assert math.exp(-lam * average_rate(duration, 1200.0)) == pytest.approx(mean, rel=1e-12)
    assert average_rate(1e-6, F18) == 5e-7


@pytest.mark.parametrize(
    ("given", "scan", "seconds"),
    [
        ({"RadiopharmaceuticalStartDateTime": "20240102091500"}, "100000", 2700),  # before Start Time
        (
            {"RadiopharmaceuticalStartDateTime": "20190102091500"},
            "100000",
            3600,
        ),  # shifted dates: Start Time counts
        ({"RadiopharmaceuticalStartDateTime": "20240102081500+0000"}, "100000", 2700),  # one hour east of UTC
        ({"RadiopharmaceuticalStartTime": "233000"}, "003000", 3600),  # before midnight
        ({"RadiopharmaceuticalStartTime": "100100"}, "100000", -60),  # a dynamic scan, started first
    ],
)
def test_the_injection_is_where_it_is_plausible(given: dict[str, str], scan: str, seconds: float) -> None:
    """Start DateTime before Start Time, the day before where only that fits, and scans that begin before the dose."""
    header = image(dose(**given), SeriesTime=scan, AcquisitionTime=scan, TimezoneOffsetFromUTC="+0100")
    assert facts_of(header)["decay_time"] == seconds


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({}, {"RadiopharmaceuticalStartTime": "150000"}, "lies 300 min after"),
        ({}, {"RadiopharmaceuticalStartTime": "130000"}, "RadiopharmaceuticalStartTime 2024-01-02 13:00:00"),
        ({}, {"RadionuclideHalfLife": "109.77"}, "half-life of 109.77 s that is not plausible"),
        ({}, {"RadionuclideHalfLife": "282240"}, "names no day"),
        ({}, {"RadiopharmaceuticalStartTime": None}, "RadiopharmaceuticalStartTime are absent"),
        ({}, {"RadionuclideHalfLife": None}, "RadionuclideHalfLife is absent"),
        ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose is absent"),
        ({}, {"RadionuclideTotalDose": "0"}, "RadionuclideTotalDose is 0"),
        ({}, {"RadionuclideTotalDose": "370"}, "is it in MBq?"),
        ({"PatientWeight": "0"}, {}, "PatientWeight is 0"),
        ({"PatientWeight": None}, {}, "PatientWeight is absent"),
        ({"PatientWeight": "70000"}, {}, "which no patient weighs"),
        ({"DecayCorrection": "NONE"}, {}, "DecayCorrection is NONE"),
        ({"DecayCorrection": None}, {}, "DecayCorrection is absent"),
        ({"CorrectedImage": ["DECY"]}, {}, "CorrectedImage is DECY: without ATTN"),
        ({"CorrectedImage": None}, {}, "CorrectedImage is absent: without ATTN and DECY"),
        ({"AcquisitionDate": ""}, {}, "AcquisitionDate and AcquisitionTime are not in every image"),
        ({"RadiopharmaceuticalInformationSequence": []}, {}, "so the dose is unknown"),
        ({"RadiopharmaceuticalInformationSequence": [dose(), dose()]}, {}, "names 2 radiopharmaceuticals"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], given: dict[str, Any], words: str) -> None:
    """`suv_missing` names the attribute and its value for everything that an SUV rests on."""
    assert words in facts_of(image(dose(**given), **changes))["suv_missing"]


def test_one_image_that_differs_is_noticed() -> None:
    """The facts are of all images: another weight or dose in one of them leaves the series without SUV."""
    assert (
        "PatientWeight is not one in all images (70, 71)"
        in facts_of(image(), image(PatientWeight="71"))["suv_missing"]
    )
    other = image(dose(RadionuclideTotalDose="1000000000"))
    assert "RadiopharmaceuticalInformationSequence is not one" in facts_of(image(), other)["suv_missing"]


def test_counts_corrected_to_the_injection_did_not_decay() -> None:
    """DecayCorrection ADMIN has no decay term, and needs no times at all."""
    facts = facts_of(
        image(dose(RadiopharmaceuticalStartTime=None), DecayCorrection="ADMIN", AcquisitionTime=None)
    )
    assert facts["decay_time"] == 0
    assert "suv_missing" not in facts


def philips(**factors: Any) -> Dataset:
    """An image of Philips in counts, with its private factors."""
    header = image(Units="CNTS", Manufacturer="Philips Medical Systems")
    block = header.private_block(0x7053, "Philips PET Private Group", create=True)
    for element, value in ((0x00, factors.get("suv")), (0x09, factors.get("activity"))):
        if value is not None:
            block.add_new(element, "UN" if isinstance(value, bytes) else "DS", value)
    return header


def test_counts_of_philips_bring_their_factor() -> None:
    """(7053,xx00) gives SUV, (7053,xx09) Bq/ml, also where the VR was lost; 0 or another creator is none."""
    assert facts_of(philips(suv="0.000551"), unit=COUNTS)["suv_factor"] == 0.000551
    assert facts_of(philips(suv="0", activity=b"1.602563 "), unit=COUNTS)["activity_factor"] == 1.602563
    unscaled = facts_of(philips(), unit=COUNTS)
    assert "Units CNTS) without a factor" in unscaled["suv_missing"]
    only = philips(suv="0.000551")
    only.PatientWeight = "0"
    assert "suv_missing" not in facts_of(only, unit=COUNTS)


def test_a_factor_without_its_creator_is_not_believed() -> None:
    """What an anonymiser left of Philips' factors scales nothing: it is named, and the series refused."""
    header = philips(suv="0.000551", activity="1.602563")
    header.Manufacturer = "Philips Medical Systems"
    del header[0x7053, 0x0010]
    found = facts_of(header, unit=COUNTS)
    assert not {"suv_factor", "activity_factor"} & found.keys()
    said = (
        "(7053,1000) and (7053,1009) may be one, but without the private creator (7053,0010) that is unknown"
    )
    assert said in found["suv_missing"]


def test_counts_whose_factor_differs_from_slice_to_slice_have_none() -> None:
    """One factor for the series, or none: nothing is averaged."""
    assert "without a factor" in facts_of(philips(suv="1"), philips(suv="2"), unit=COUNTS)["suv_missing"]


def test_other_units_are_no_activity() -> None:
    """Counts per second and proportional counts, as of SPECT stored as PET, have no SUV."""
    unit = Code("{propcounts}", "UCUM", "Proportional to counts")
    assert (
        "{propcounts} (Units PROPCNTS), no activity"
        in facts_of(image(Units="PROPCNTS"), unit=unit)["suv_missing"]
    )


def test_what_is_an_suv_already_needs_nothing() -> None:
    """GML images miss nothing, whatever their header lacks."""
    unit = Code("g/ml{SUVbw}", "UCUM", "SUVbw")
    assert "suv_missing" not in facts_of(
        image(Units="GML", PatientWeight="0", CorrectedImage=None), unit=unit
    )


def test_enhanced_pet_says_the_moment_itself(tmp_path: Path) -> None:
    """Decay Correction DateTime and the corrections of an enhanced object take the place of the classic words."""
    ds = enhanced([[0, 0, 0], [0, 0, 2]], np.ones((2, 5, 6), "<i2"), sop=EnhancedPETImageStorage)
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping("Bq/ml", 3)]
    ds.DecayCorrected, ds.AttenuationCorrected = "YES", "YES"
    ds.DecayCorrectionDateTime, ds.PatientWeight = "20240102100000", 70
    ds.RadiopharmaceuticalInformationSequence = [
        dose(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20240102090000")
    ]
    facts = load([save(ds, tmp_path / "enhanced.dcm")]).value.facts
    assert (facts["decay_time"], facts["corrected_image"]) == (3600, ("ATTN", "DECY"))
    assert "suv_missing" not in facts
    ds.DecayCorrected = "NO"
    facts = load([save(ds, tmp_path / "none.dcm")]).value.facts
    assert "DecayCorrection is NONE" in facts["suv_missing"]


@pytest.mark.parametrize(
    ("pattern", "seconds"), [("qin-headneck-0139/*.dcm", 6151.687), ("acrin-flt/1.dcm", 3976.921)]
)
def test_real_series_are_corrected_to_what_their_decay_factor_says(pattern: str, seconds: float) -> None:
    """PS3.3 C.8.9.1.1.5: Series Time + Frame Reference Time - ln(Decay Factor) / lambda is the moment found."""
    found = sorted(need_samples("PET").glob(pattern))
    paths = [p for p in found if dcmread(p, stop_before_pixels=True).Modality == "PT"]
    facts = load(paths).value.facts
    assert facts["decay_time"] == pytest.approx(seconds, abs=1e-3)
    for path in paths:
        header = dcmread(path, stop_before_pixels=True)
        decayed = math.log(float(header.DecayFactor)) * facts["half_life"] / math.log(2)
        assert float(header.FrameReferenceTime) / 1000 - decayed == pytest.approx(0, abs=0.1)


def test_the_parts_of_a_dynamic_series_have_one_start(tmp_path: Path) -> None:
    """Read part by part, each volume's decay counts from the start of the whole series."""
    from node.testing import Grid, Series, sphere_volume, write_pet_series

    grid = Grid((3, 8, 8), (4.0, 4.0, 4.0))
    paths = []
    for n, time in enumerate(("101500", "102500")):
        volume = sphere_volume(grid, radius=10, inside=5000, outside=100, unit=BECQUEREL)
        changes = {"SeriesTime": "170000", "AcquisitionTime": time, "AcquisitionNumber": str(n)}
        paths += write_pet_series(tmp_path / str(n), volume, series=Series("dynamic", changes=changes))
    parts = [part.load().value for part in volumes(paths, ("AcquisitionNumber",), "run")]
    assert [part.facts["decay_time"] for part in parts] == [3600, 3600]


def test_enhanced_pet_that_offers_activity_and_suv_is_read_as_activity(tmp_path: Path) -> None:
    """Of two mappings, Bq/ml and SUVbw, the activity is taken, whichever comes first; two SUVs alone are refused."""
    ds = enhanced([[0, 0, 0], [0, 0, 2]], np.ones((2, 5, 6), "<i2"), sop=EnhancedPETImageStorage)
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.RealWorldValueMappingSequence = [mapping("g/ml{SUVbw}", 0.001), mapping("Bq/ml", 3)]
    volume = load([save(ds, tmp_path / "both.dcm")]).value
    assert (volume.unit.value, volume.array[0, 0, 0]) == ("Bq/ml", 3)
    shared.RealWorldValueMappingSequence = [mapping("g/ml{SUVbw}", 0.001), mapping("g/ml{SUVlbm(Janma)}", 2)]
    with pytest.raises(Refused, match="Units is absent, so the unit"):
        load([save(ds, tmp_path / "suvs.dcm")])


def test_a_spect_stored_as_pet_has_its_suv_only_with_a_date() -> None:
    """Lu-177, half-life 6.6 d, scanned a day after it was given: the date says so, a time of day alone does not."""
    lutetium = {"RadionuclideHalfLife": "574300", "RadionuclideTotalDose": "7.4E9"}
    dated = image(dose(RadiopharmaceuticalStartDateTime="20240101100000", **lutetium))
    assert facts_of(dated)["decay_time"] == 86400
    assert "names no day" in facts_of(image(dose(**lutetium)))["suv_missing"]
    uncorrected = image(
        dose(RadiopharmaceuticalStartDateTime="20240101100000", **lutetium), CorrectedImage=["DECY"]
    )
    assert "without ATTN" in facts_of(uncorrected)["suv_missing"]


def test_a_dynamic_series_is_asked_once_when_it_began(tmp_path: Path) -> None:
    """However many volumes a series has, each image is asked for its moment once; all have the start of the whole."""
    paths = []
    for n in range(4):
        for k in range(2):
            ds = blank(PositronEmissionTomographyImageStorage, np.full((4, 4), n, np.int16))
            ds.update(image(AcquisitionTime=f"100{n}00", FrameReferenceTime=str(60000 * n + 30000)))
            ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2 * k]
            ds.PixelSpacing, ds.Modality, ds.InstanceNumber = [2, 2], "PT", 2 * n + k + 1
            ds.RescaleSlope, ds.RescaleIntercept = 1, 0
            paths.append(save(ds, tmp_path / f"{n}{k}.dcm"))
    with Profile() as profile:
        loaded = next(iter(parts("Stack", paths, (), "refuse"))).load()
    assert [volume.facts["decay_time"] for volume in loaded.value.volumes] == [3600.0] * 4
    asked = {name: calls for (_, _, name), (calls, *_) in Stats(profile).stats.items()}  # type: ignore[attr-defined]
    assert asked["_acquired"] == len(paths)
