"""Renditions: what is drawn lies where it was found, is legible, names no patient, and leaves as valid captures."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import peers
import pytest
from derive_material import HU, LUNG, affine, complaints, ct_headers, job, numbers, volume
from pydicom.dataset import Dataset
from skimage.color import rgb2lab

from node.derive.drawing import (
    GROUND,
    PALETTE,
    directions,
    drawable,
    fitted,
    number,
    unit_text,
    viridis,
    width_of,
    wrapped,
)
from node.derive.making import Making
from node.derive.page import HEIGHT, WIDTH, Column, Table, pages
from node.derive.rendition import rendition
from node.derive.slices import chosen
from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Refused
from node.model import Code, Job
from node.operator import (
    Channel,
    Document,
    FractionalMask,
    Graphic,
    KeyImages,
    Level,
    Map,
    Mask,
    Measurement,
    Picture,
    Presentation,
    Recording,
    Remark,
    Report,
    Tiles,
    Volume,
    Waveform,
)

SHAPE = (6, 40, 40)
PLACE = affine((2.0, 1.0, 1.0))
SIDE, HEAD = 640, 64  # of a frame's image, and of the title above it
MILLIVOLT = Code("mV", "UCUM", "millivolt")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def headers_of(**changed: object) -> tuple[Dataset, ...]:
    """Conformant CT headers of SHAPE."""
    return tuple(ct_headers(*SHAPE, PLACE, **changed))


def flat(value: float = 0.0) -> Volume:
    """A volume of one value, shown as mid grey by its window."""
    return Volume(np.full(SHAPE, value, np.float32), PLACE, HU, facts={"window": (0.0, 100.0)})


def drawn(result: object, value: object = None, headers: tuple[Dataset, ...] | None = None) -> Picture:
    """Draw *result* over what was received."""
    made = job("out")
    sources = Sources(headers or headers_of(), (), flat() if value is None else value)
    return rendition(Making(made, made.plan.outputs[0], sources), result, ())


def box() -> Mask:
    """Rows 10 to 19, columns 20 to 34 of slices 2 and 3."""
    array = np.zeros(SHAPE, bool)
    array[2:4, 10:20, 20:35] = True
    return Mask(array, PLACE, "Lunge, größter Herd", *LUNG)


def quantity(array: np.ndarray) -> Map:
    """A diffusion map."""
    return Map(
        array, PLACE, Code("113041", "DCM", "Apparent Diffusion Coefficient"), Code("um2/s", "UCUM", "um2/s")
    )


def twelve(values: np.ndarray, frequency: float = 500.0) -> Recording:
    """The same curve, in mV, in all twelve leads."""
    channels = tuple(Channel(f"Lead {name}", None, MILLIVOLT, (0.05, 150.0)) for name in LEADS)
    return Recording((Waveform(np.repeat(values[None], 12, 0), frequency, channels, "RHYTHM"),))


def everything() -> dict[str, object]:
    """One result of each kind that has a rendition."""
    fraction = np.zeros(SHAPE, np.float32)
    fraction[1, 5:30, 5:30] = np.linspace(0, 1, 25)
    return {
        "volume": volume(SHAPE, PLACE),
        "mask": box(),
        "fraction": FractionalMask(fraction, PLACE, "Lung", *LUNG),
        "map": quantity(np.linspace(0, 3000, np.prod(SHAPE)).reshape(SHAPE)),
        "numbers": [
            *numbers(None),
            Measurement(Code("x", "99T", "Länge µ²"), 1.5, Code("cm2", "UCUM", "cm2")),
        ],
        "keys": KeyImages(Code("113000", "DCM", "Of Interest"), (4, 1), "größte Fläche"),
        "state": Presentation("LUNG", graphics=(Graphic(1, "CIRCLE", ((5.0, 5.0), (5.0, 9.0)), "8 mm"),)),
    }


def with_pictures(names: Sequence[str]) -> Job:
    """A job that wants each output as a picture, too."""
    made = job(*names)
    outputs = tuple(replace(output, picture=True) for output in made.plan.outputs)
    series = {**made.provenance.series_numbers, **{f"{n}/picture": 900 + i for i, n in enumerate(names)}}
    return replace(
        made,
        plan=replace(made.plan, outputs=outputs),
        provenance=replace(made.provenance, series_numbers=series),
    )


def test_what_reading_decided_is_drawn_with_the_report() -> None:
    """A remark of the sources stands below the numbers as one of the report does."""
    made, said = job("out"), "The segmentation is FRACTIONAL."
    told = Sources(headers_of(), (), flat(), remarks=(said,))
    found = rendition(Making(made, made.plan.outputs[0], told), Report(tuple(numbers(None))), ())
    same = drawn(Report(tuple(numbers(None)), (Remark(said),)))
    assert np.array_equal(found.array, same.array)
    assert not np.array_equal(found.array, drawn(Report(tuple(numbers(None)))).array)


def test_every_kind_leaves_as_a_valid_capture(tmp_path: Path) -> None:
    """Each result and its picture pass the gate; dciodvfy finds no error in the picture; twice gives equal bytes."""
    results = everything()
    products = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        sources = Sources(headers_of(), (), flat())
        products.append(write(results, with_pictures(list(results)), sources, tmp_path / folder))
    pictures = [p for p in products[0] if p.kind == "picture"]
    assert {p.output for p in pictures} == set(results)
    for product in pictures:
        assert complaints(tmp_path / "a" / product.path) == set()
    assert peers.dcentvfy(*(tmp_path / "a" / product.path for product in products[0])) == []
    assert products[0] == products[1]  # their digests are of the bytes


@pytest.mark.parametrize("name", list(everything()))
def test_no_rendition_names_the_patient(name: str) -> None:
    """Another name, ID, birth date and accession number change no pixel of it."""
    other = headers_of(
        PatientName="Other^Person", PatientID="X-9", PatientBirthDate="20010101", AccessionNumber="ZZZ"
    )
    result = everything()[name]
    assert np.array_equal(drawn(result).array, drawn(result, headers=other).array)


def test_a_mask_is_drawn_where_it_is() -> None:
    """The outline's box on the frame is the mask's box times the zoom; only slices that hold it are shown."""
    frames = drawn(box()).array
    assert len(frames) == 2
    picture = frames[0][HEAD : HEAD + SIDE, :SIDE]
    orange = (picture == np.array(PALETTE[0])).all(-1)
    rows, columns = np.flatnonzero(orange.any(1)), np.flatnonzero(orange.any(0))
    zoom = SIDE / 40
    found = np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]) / zoom
    assert np.abs(found - [10, 20, 20, 35]).max() < 0.6  # the zoom's smoothing


def test_a_mask_on_another_grid_is_drawn_on_the_source() -> None:
    """A mask on voxels of half the size covers the same place as its twin on the source's grid."""
    fine = PLACE.copy()
    fine[:3, :3] /= 2
    # The first fine voxel's corner is the first coarse voxel's corner.
    fine[:3, 3] += (fine[:3, :3] - PLACE[:3, :3]) @ [0.5, 0.5, 0.5]
    array = box().array.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(drawn(replace(box(), array=array, affine=fine)).array, drawn(box()).array)


def test_an_empty_mask_says_so() -> None:
    """Nothing found is one frame that says it, not an empty object and no crash."""
    frames = drawn(replace(box(), array=np.zeros(SHAPE, bool))).array
    assert len(frames) == 1
    assert not np.array_equal(frames[0][:, SIDE:], drawn(box()).array[0][:, SIDE:])


def test_map_colours_mean_their_values() -> None:
    """The ends of the scale have the ends of viridis, what is not valid shows the ground."""
    array = np.zeros(SHAPE)
    array[:, :, 20:] = 100.0
    array[:, :10] = np.nan
    frame = drawn(quantity(array)).array[0]
    at = {name: tuple(frame[HEAD + 400, x]) for name, x in (("low", 100), ("high", 500))}
    assert at == {"low": tuple(viridis()[0]), "high": tuple(viridis()[255])}
    assert tuple(frame[HEAD + 80, 100]) == GROUND


def test_viridis_is_even() -> None:
    """Ends as published (#440154, #fde725); CIELAB lightness, by scikit-image, rises evenly from end to end."""
    table = viridis()
    assert (tuple(table[0]), tuple(table[-1])) == ((68, 1, 84), (253, 231, 37))
    lightness = rgb2lab(table[None].astype(float) / 255)[0, :, 0]
    steps = np.diff(lightness[::15])
    assert steps.min() > 0
    assert steps.max() < 2 * steps.mean()


def test_directions_are_the_patients() -> None:
    """Axes of LPS: x to the left, y to the back, z to the head (PS3.3 C.7.6.2.1.1)."""
    found = [
        directions(np.array(axis)) for axis in ((1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, 1), (0.8, 0.6, 0))
    ]
    assert found == ["L", "R", "A", "H", "LP"]


def test_long_series_are_thinned() -> None:
    """At most so many of the indices, evenly, with the first and the last."""
    picked = chosen(range(300), 32)
    assert (len(picked), picked[0], picked[-1]) == (32, 0, 299)
    assert {b - a for a, b in pairwise(picked)} <= {9, 10}
    assert chosen([3, 5], 32) == [3, 5]


def test_letters_of_the_tables_exist() -> None:
    """Umlauts, micro, superscripts and Greek are drawn, what the font lacks is visibly replaced, no crash."""
    text = "Müller Größe ÄÖÜ µ μ m² cm³ αβγ ΔT ≤ ≥ ± × °C − … Łódź Жук"
    assert drawable(text) == text
    assert drawable("e\u0301 \u4e2d\n\x07x") == "é \ufffd x"
    assert [unit_text(Code(u, "UCUM", "")) for u in ("mm3", "[hnsf'U]", "Cel", "um2/s", "g/ml{SUVbw}", "uV", "1")] == [
        "mm³", "HU", "°C", "µm²/s", "g/ml", "µV", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.5, "12.5"),
        (-45.25, "−45.25"),
        (1234.5, "1234"),
        (123456.7, "123 457"),
        (50_037_000.0, "50 037 000"),
        (-50_037_000.0, "−50 037 000"),
        (2.5e9, "2.500e+09"),
        (1e-9, "1.000e−09"),
        (float("nan"), "–"),
    ],
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    """Four significant digits, whole numbers in groups of three, no needless zeros, a true minus sign."""
    assert number(value) == text


def test_nothing_is_written_as_minus_zero() -> None:
    """The lower end of a colour bar that rounds to zero has no sign."""
    assert number(-1e-4, 1.0) == "0.00"


def test_wrapped_lines_fit() -> None:
    """No line is wider than the room, nothing is lost where there are lines enough, and what is cut says so."""
    text = "Donaudampfschifffahrtsgesellschaftskapitän misst das Volumen der linken Lunge"
    lines = wrapped(text, 22, 200)
    assert max(width_of(line, 22) for line in lines) <= 200
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped(text, 22, 200, lines=2)[-1].endswith("…")
    assert width_of(fitted(text, 22, 90), 22) <= 90


def test_table_cells_never_touch() -> None:
    """With the longest texts the gaps between the columns stay empty on every page, and no row is lost."""
    long = "Volumen-der-linken-Lunge " * 12
    columns = (Column("Region", 2), Column("Quantity", 3), Column("Value", 1, right=True))
    rows = tuple((f"{k // 5} {long}", long, "−123456789012345678901234567890") for k in range(40))
    made = pages(Table(long, (("Study", long), ("Source", long)), columns, rows, long))
    assert {page.shape for page in made} == {(HEIGHT, WIDTH)}
    edges = 80 + (WIDTH - 160) * np.array([2, 5]) / 6
    ground = int(np.median(made[0]))
    for page in made:
        table = page[700:1600]
        for edge in edges.astype(int):
            gap = table[:, edge - 10 : edge - 2]
            rule = (table != ground).mean(axis=1) > 0.8  # a line across the page
            assert (gap[~rule] == ground).all()
    drawn_rows = sum(len(_bands(page[700:1680, 80 + 360 : 80 + 880])) for page in made)
    assert drawn_rows >= len(rows)


def _bands(part: np.ndarray) -> list[int]:
    """Starts of runs of pixel rows that hold text."""
    filled = (part != np.median(part)).any(axis=1)
    return np.flatnonzero(np.diff(np.r_[False, filled].astype(int)) == 1).tolist()


def test_a_page_of_numbers_is_clean() -> None:
    """The page of a report says that nothing identifying is burned in, whatever the source says of itself."""
    made = drawn(numbers(None), headers=headers_of(BurnedInAnnotation="YES"))
    assert made.facts["burned_in"] is False
    assert made.array.shape == (1, HEIGHT, WIDTH)
    assert len(drawn(numbers(None) * 60).array) > 2


def test_the_ecg_paper_is_calibrated() -> None:
    """A step of 1 mV is 50 pixels high at 10 mm/mV and 0.4 s are 50 wide at 25 mm/s, 5 pixels to the mm."""
    time = np.arange(5000) / 500.0
    step = ((time % 1.0) >= 0.6).astype(float)  # 1 mV for the last 0.4 s of each second
    page = drawn(twelve(step)).array[0]
    strip = (page.max(axis=-1) < 90)[84 + 3 * 185 :, 150:1300]  # the rhythm strip, right of pulse and label
    high = [int(np.flatnonzero(column)[0]) for column in strip.T if column.any()]
    levels, counts = np.unique(high, return_counts=True)
    top, base = sorted(levels[np.argsort(counts)[-2:]])
    assert abs(base - top - 50) <= 1
    edges = np.flatnonzero(np.diff((np.array(high) <= top + 2).astype(int)))
    widths = np.diff(edges)[:10]
    assert np.abs(widths[::2] + widths[1::2] - 125).max() <= 1
    assert np.abs(np.minimum(widths[::2], widths[1::2]) - 50).max() <= 2


def test_large_complexes_lower_the_gain() -> None:
    """Amplitudes that would run into the next row are drawn at 5 mm/mV: the page differs from twice the half."""
    time = np.arange(5000) / 500.0
    wave = np.sin(2 * np.pi * time)
    small, large = drawn(twelve(wave)).array, drawn(twelve(wave * 4)).array
    assert not np.array_equal(small, large)
    dark = (large[0].max(axis=-1) < 90)[84:, 80:]
    assert dark[5:-5].any(axis=0).mean() > 0.9


def test_other_recordings_are_stacked() -> None:
    """Thirty channels over 25 s become pages of at most 24 channels and 10 s; gaps and silence do not crash."""
    values = np.random.default_rng(1).normal(size=(30, 2500)) * 40
    values[3], values[4, :100] = 0.0, np.nan
    channels = tuple(Channel(f"C{k}", None, Code("uV", "UCUM", "microvolt")) for k in range(30))
    assert len(drawn(Recording((Waveform(values, 100.0, channels),))).array) == 3 * 2


def test_key_images_and_states_follow_the_operator() -> None:
    """The selected images in their order; a state shows its window and its marks only on marked images."""
    ramp = Volume(np.arange(6.0)[:, None, None] * np.ones(SHAPE), PLACE, HU, facts={"window": (2.5, 5.0)})
    keys = drawn(KeyImages(Code("113000", "DCM", "Of Interest"), (4, 1)), ramp).array
    assert [int(frame[HEAD + 300, 300, 0]) for frame in keys] == [204, 51]
    dot = Graphic(2, "POINT", ((20.0, 20.0),))
    state = drawn(Presentation("A", window=(1.0, 4.0), graphics=(dot,)), ramp).array
    assert len(state) == 1
    assert int(state[0][HEAD + 100, 100, 0]) == 191
    assert tuple(state[0][HEAD + 328, 328]) == PALETTE[0]
    inverted = drawn(Presentation("A", window=(1.0, 4.0), inverted=True), ramp).array
    assert [int(f[HEAD + 100, 100, 0]) for f in inverted[:3]] == [191, 128, 64]


def test_a_slide_is_shown_whole() -> None:
    """The coarsest level is put together from its tiles, without what lies beyond its edge."""
    level = Level(5, 7, (0.01, 0.01), (4, 4), lambda r, c: np.full((4, 4, 3), 10 * r + c, np.uint8))
    made = drawn(Tiles((level,)))
    assert made.array.shape == (1, 5, 7, 3)
    assert made.array[0, :, :, 0].tolist() == [[0] * 4 + [1] * 3] * 4 + [[10] * 4 + [11] * 3]
    with pytest.raises(Refused, match="9000 x 9000"):
        drawn(Tiles((replace(level, rows=9000, columns=9000),)))


def test_what_cannot_be_drawn_is_refused() -> None:
    """A PDF and an unknown result are refused in words that name the way out."""
    with pytest.raises(Refused, match="draws no PDF pages"):
        drawn(Document(b"%PDF-1.4", "Befund"))
    with pytest.raises(Refused, match="a dict cannot be drawn"):
        drawn({})
