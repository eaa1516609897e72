"""Make docs/gallery.md and its pictures: every ready rule that shows something, over a phantom, as PNG of 512 pixels.

Run it from the repository's root: `.venv/bin/python docs/make_gallery.py`; with names it makes these pictures only.
Every picture is what a shipped rule made of a phantom of `node.testing`, as the object itself says it is to be shown:
its window, its colours, its frame. Reports are shown as the page for viewers that have none.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from make_pictures import written_part
from PIL import Image
from pydicom import Dataset, dcmread

from node.model import Code
from node.operator import Mask, Volume
from node.testing import (
    HOUNSFIELD,
    Chest,
    Grid,
    Series,
    ball_mask,
    body_volume,
    chest_volume,
    head_volume,
    run_rule,
    sphere_volume,
    write_ct_series,
    write_mr_series,
    write_nm_image,
    write_nm_tomo,
    write_pet_series,
    write_segmentation,
)
from node.testing.nuclear import RENOGRAM, as_seen, flood_frames, kidney_frames, lung_frames
from node.testing.pet import chest_uptake
from node.testing.relaxing import HEAD, diffusion_stack, dynamic_stack, echo_stack, flip_stack
from node.testing.stacks import write_mr_stack

DOCS = Path(__file__).parent
GALLERY = DOCS / "gallery"
EXAMPLES = DOCS.parent / "config" / "examples" / "rules"
SIDE = 512
"""Pixels of the longer side."""
COLUMNS = 3
_HEAD = """# What the ready rules make

Made by `docs/make_gallery.py`: each picture is a result of a rule in
[config/examples/rules](../config/examples/rules) over a phantom, shown as the object says it is to be shown. Reports
leave as DICOM structured reports; here stands the page that goes to viewers that have none.
"""
NATIVE = {"ContrastBolusAgent": None}
CHEST = Grid((180, 150, 150), (1.25, 2.2, 2.2))
THIN = Grid((122, 108, 132), (1.5, 2.6, 2.6))
DISEASED = Chest(lung=(48.0, 70.0, 85.0), diseased=(0.3, 0.6), field=168.0)
UPTAKE = Grid((70, 80, 80), (4.0, 4.4, 4.4))


@dataclass(frozen=True)
class Shot:
    """One picture: of which result of which rule, and where in it."""

    name: str
    rule: str
    result: str
    title: str
    place: float = 0.5
    """From 0, the first image or frame, to 1, the last."""
    page: bool = False
    """The result is no image: its page is shown."""


@dataclass(frozen=True)
class Scene:
    """A study of phantoms, and what is shown of it."""

    heading: str
    write: Callable[[Path], list[Path]]
    shots: tuple[Shot, ...]


def native_chest(folder: Path) -> list[Path]:
    """A thin native chest with air outside the field of view."""
    changes = {**NATIVE, "ConvolutionKernel": "B31f"}
    return write_ct_series(
        folder, chest_volume(THIN, DISEASED, noise=12.0), series=Series("chest", number=2, changes=changes)
    )


def contrast_chest(folder: Path) -> list[Path]:
    """An enhanced chest."""
    return write_ct_series(
        folder, body_volume(CHEST), series=Series("cta", number=2, description="CTA chest")
    )


def chest_and_regions(folder: Path) -> list[Path]:
    """A chest, and a segmentation of its liver, its heart and a nodule."""
    volume = body_volume(CHEST)
    images = write_ct_series(folder / "ct", volume, series=Series("ct", "regions", number=2, changes=NATIVE))
    return [*images, write_segmentation(folder / "seg.dcm", images, regions(volume), series=SEGMENTED)]


SEGMENTED = Series("seg", "regions", number=9)


def regions(volume: Volume) -> list[Mask]:
    """Three regions of `body_volume`."""
    heart, spleen = Code("80891009", "SCT", "Heart"), Code("52988006", "SCT", "Lesion")
    return [
        ball_mask(volume, 35.0, (-50.0, -8.0, -85.0), label="Liver"),
        ball_mask(volume, 30.0, (18.0, -26.0, -12.0), label="Heart", type=heart),
        ball_mask(volume, 12.0, (62.0, -22.0, 40.0), label="Nodule", type=spleen),
    ]


def calcified_heart(folder: Path) -> list[Path]:
    """Four calcified spots in soft tissue, 3 mm slices, and the heart's outline."""
    grid = Grid((24, 96, 96), (3.0, 2.0, 2.0))
    x, y, _ = grid.coordinates()
    array = np.where(np.hypot(x / 90, y / 70) < 1, 40.0, -1000.0).astype(np.float32)
    for number, peak in enumerate((150, 250, 350, 450)):
        array[10:12, 40:42, 40 + 4 * number : 42 + 4 * number] = peak
    changes = {**NATIVE, "SliceThickness": "3"}
    volume = Volume(array, grid.affine, HOUNSFIELD)
    ct = write_ct_series(folder / "ct", volume, series=Series("ca", "heart", number=2, changes=changes))
    heart = ball_mask(volume, 34.0, (0.0, 0.0, 0.0), label="Heart", type=Code("80891009", "SCT", "Heart"))
    return [*ct, write_segmentation(folder / "seg.dcm", ct, [heart], series=Series("seg", "heart", number=9))]


def shaded_head(folder: Path) -> list[Path]:
    """A head under the shading of a surface coil."""
    head = head_volume(Grid((24, 144, 144), (6.0, 1.7, 1.7)), noise=8.0)
    x = np.linspace(-1, 1, head.array.shape[2])
    array = np.clip(head.array * np.exp(0.7 * x)[None, None], 0, 4000).astype(np.float32)
    return write_mr_series(
        folder, Volume(array, head.affine, head.unit), series=Series("t1", description="t1 se")
    )


def moved_head(folder: Path) -> list[Path]:
    """A head before contrast, and after it turned by 4° and shifted."""
    grid = Grid((36, 100, 100), (5.0, 2.3, 2.3))
    cosine, sine = float(np.cos(np.radians(4))), float(np.sin(np.radians(4)))
    before = head_volume(grid, seed=1)
    lesion = ball_mask(before, 11.0, (-34.0, 26.0, 24.0)).array
    dark = replace(before, array=np.where(lesion, np.minimum(before.array, 720.0), before.array))
    after = head_volume(replace(grid, row=(cosine, sine, 0.0), column=(-sine, cosine, 0.0)), seed=2)
    affine = grid.affine
    affine[:3, 3] += (4.0, -3.0, 5.0)
    gad = Series("gad", "moved", number=3, changes={"ContrastBolusAgent": "Gadobutrol"})
    return [
        *write_mr_series(folder / "1", dark, series=Series("native", "moved", number=2)),
        *write_mr_series(folder / "2", replace(after, affine=affine), series=gad),
    ]


def angiogram(folder: Path) -> list[Path]:
    """Bright vessels that wind through a dark head."""
    grid = Grid((80, 120, 120), (1.8, 1.6, 1.6))
    x, y, z = grid.coordinates()
    array = np.where(np.sqrt((x / 70) ** 2 + (y / 88) ** 2 + (z / 80) ** 2) < 1, 120.0, 8.0)
    for side in (-1, 1):
        for turn, width in ((0.0, 3.2), (2.1, 2.4), (4.2, 1.8)):
            middle = (side * (18 + 12 * np.sin(z / 22 + turn)), -10 + 26 * np.cos(z / 26 + turn))
            array[np.hypot(x - middle[0], y - middle[1]) < width] = 900.0
    noise = np.random.default_rng(0).normal(0, 12, grid.shape)
    head = head_volume(grid)
    changes = {"MRAcquisitionType": "3D", "ScanningSequence": "GR"}
    series = Series("tof", description="TOF 3D multi-slab", changes=changes)
    return write_mr_series(
        folder, Volume(np.abs(array + noise).astype(np.float32), head.affine, head.unit), series=series
    )


def stack_of(make: Callable[[Grid], object], description: str) -> Callable[[Path], list[Path]]:
    """A series that holds several volumes of a head."""

    def write(folder: Path) -> list[Path]:
        grid = replace(HEAD, shape=(HEAD.shape[0], 128, 128), spacing=_finer(HEAD))
        return write_mr_stack(
            folder, make(grid), series=Series(description.replace(" ", "-"), description=description)
        )  # type: ignore[arg-type]

    return write


def _finer(grid: Grid) -> tuple[float, float, float]:
    apart, rows, columns = grid.spacing
    return apart, rows * grid.shape[1] / 128, columns * grid.shape[2] / 128


def uptake(folder: Path) -> list[Path]:
    """The PET of a chest."""
    changes = {"PatientSex": "F"}
    return write_pet_series(
        folder, chest_uptake(UPTAKE), series=Series("pet", "chest", number=3, changes=changes)
    )


def uptake_over_chest(folder: Path) -> list[Path]:
    """PET and CT of a chest."""
    ct = write_ct_series(folder / "ct", body_volume(CHEST), series=Series("ct", "chest", number=2))
    return [*ct, *uptake(folder / "pet")]


def uptake_and_regions(folder: Path) -> list[Path]:
    """A PET, and a segmentation of two nodules and of the liver."""
    images, volume = uptake(folder / "pet"), chest_uptake(UPTAKE)
    lesion = Code("52988006", "SCT", "Lesion")
    masks = [
        ball_mask(volume, 35.0, (-50.0, -8.0, -85.0), label="Liver"),
        ball_mask(volume, 16.0, (62.0, -22.0, 40.0), label="Nodule 1", type=lesion),
        ball_mask(volume, 12.0, (-62.0, 12.0, 45.0), label="Nodule 2", type=lesion),
    ]
    return [
        *images,
        write_segmentation(folder / "seg.dcm", images, masks, series=Series("seg", "chest", number=9)),
    ]


BOTH = ("anterior", "posterior")


def named(name: str, description: str) -> Series:
    """A series that rules know by its description."""
    return Series(name, description=description)


def lungs(folder: Path) -> list[Path]:
    """A perfusion scan of the lungs from both sides."""
    return write_nm_image(folder, as_seen(lung_frames()), BOTH, series=named("lungs", "LUNG PERFUSION"))


def kidneys(folder: Path) -> list[Path]:
    """A renogram from the back."""
    frames = kidney_frames(scale=0.2, seed=1)
    return write_nm_image(
        folder, frames, ("posterior",), phases=RENOGRAM, series=named("kidneys", "RENOGRAM MAG3")
    )


def flood(folder: Path) -> list[Path]:
    """A flood source with a dent of 5 %."""
    series = Series("flood", description="FLOOD Tc99m", changes={"BodyPartExamined": None})
    return write_nm_image(folder, flood_frames(dent=0.05), spacing=6.4, series=series)


def tomogram(folder: Path) -> list[Path]:
    """A ball with a hot spot."""
    grid = Grid((40, 64, 64), (4.0, 4.0, 4.0))
    ball = sphere_volume(grid, radius=60, inside=120, outside=5)
    spot = sphere_volume(grid, radius=25, centre=(28.0, -20.0, 24.0), inside=600, outside=0)
    return write_nm_tomo(
        folder, Volume(ball.array + spot.array, ball.affine, ball.unit), series=named("spect", "SPECT BONE")
    )


SCENES = (
    Scene("CT", contrast_chest, (
        Shot("reformat", "ct-mpr", "coronal", "`reformat`: coronal slabs of 5 mm", 0.36),
        Shot("mip-rotating", "ct-rotating-mip", "rotating", "`mip_turning`: a rotating projection", 0.0),
    )),
    Scene("CT", native_chest, (
        Shot("lungs", "ct-lungs", "lungs", "`segment_lungs`: left and right", 0.5, page=True),
        Shot("emphysema", "ct-lungs", "emphysema", "`emphysema`: LAA-950, Perc15, volume", 0.0, page=True),
        Shot("histogram", "ct-lungs", "histogram", "`histogram` of both lungs", 0.0),
    )),
    Scene("CT", calcified_heart, (
        Shot("calcium", "ct-calcium", "calcium", "`calcium_score` in the region of a SEG", 0.0, page=True),
    )),
    Scene("CT", chest_and_regions, (
        Shot("regions", "ct-regions", "regions", "`region_statistics` of every segment of a SEG", 0.0, page=True),
        Shot("first-order", "first-order", "statistics", "`first_order_segments`: IBSI statistics", 0.0, page=True),
    )),
    Scene("Magnetic resonance", shaded_head, (
        Shot("n4", "mr-n4", "even", "`n4`: a coil's shading taken out", 0.6),
    )),
    Scene("Magnetic resonance", moved_head, (
        Shot("register", "mr-register-subtract", "uptake", "`register_rigid`, `subtract`: motion taken out", 0.63),
    )),
    Scene("Magnetic resonance", angiogram, (
        Shot("mip", "mr-angio-mip", "coronal", "`mip` of an angiography", 0.0),
    )),
    Scene("Magnetic resonance", stack_of(lambda grid: diffusion_stack(grid=grid, noise=60.0), "ep2d diff"), (
        Shot("adc", "mr-adc", "adc_colours", "`adc`, `show_map`: diffusion coefficient", 0.6),
    )),
    Scene("Magnetic resonance", stack_of(lambda grid: dynamic_stack(grid=grid, noise=15.0), "t1 dyn"), (
        Shot("percent-enhancement", "mr-dce", "pe_colours", "`percent_enhancement` of a dynamic series", 0.6),
        Shot("signal-enhancement-ratio", "mr-dce", "ser_colours", "`signal_enhancement_ratio`", 0.6),
        Shot("time-to-peak", "mr-dce", "peak_colours", "`time_to_peak`", 0.6),
    )),
    Scene("Magnetic resonance", stack_of(lambda grid: echo_stack(grid=grid, noise=30.0), "T2 map"), (
        Shot("t2-map", "mr-t2-map", "t2_colours", "`t2_map` of several echoes", 0.6),
    )),
    Scene("Magnetic resonance", stack_of(lambda grid: flip_stack(grid=grid, noise=20.0), "VFA T1 map"), (
        Shot("t1-map", "mr-t1-map", "t1_colours", "`t1_map` of several flip angles", 0.6),
    )),
    Scene("PET", uptake, (
        Shot("suv", "pet-suv", "suv", "`suv`: images in g/ml", 0.7),
        Shot("mip-uptake", "pet-mip", "turning", "`mip_uptake`: dark on white, turning", 0.0),
        Shot("segment-uptake", "pet-foci", "foci", "`segment_uptake`: foci at 41 % of their maximum", 0.7, page=True),
    )),
    Scene("PET", uptake_over_chest, (
        Shot("fuse", "pet-ct-fusion", "fused", "`fuse`: PET in colour over CT", 0.64),
    )),
    Scene("PET", uptake_and_regions, (
        Shot("uptake", "pet-report", "report", "`uptake_segments`: SUVmax, peak, volume, glycolysis", 0.0, page=True),
        Shot("reference-uptake", "pet-liver-reference", "reference", "`reference_uptake` (PERCIST)", 0.0, page=True),
    )),
    Scene("SPECT and scintigrams", lungs, (
        Shot("geometric-mean", "nm-geometric-mean", "mean", "`geometric_mean` of front and back", 0.0),
        Shot("left-right", "nm-geometric-mean", "split", "`left_right`: the shares of the lungs", 0.0, page=True),
    )),
    Scene("SPECT and scintigrams", kidneys, (
        Shot("time-activity", "nm-kidneys-dynamic", "curves", "`time_activity`: curves of both kidneys", 0.0),
        Shot("time-activity-values", "nm-kidneys-dynamic", "numbers", "`time_activity_values`", 0.0, page=True),
    )),
    Scene("SPECT and scintigrams", flood, (
        Shot("uniformity", "nm-flood-qa", "uniformity", "`uniformity` of a flood (NEMA NU 1)", 0.0, page=True),
    )),
    Scene("SPECT and scintigrams", tomogram, (
        Shot("tomo", "nm-tomo", "rotating", "`mip_uptake` of a tomogram", 0.0),
    )),
)  # fmt: skip


def make(names: Sequence[str] = (), gallery: Path = GALLERY) -> list[Path]:
    """Make the pictures called *names*, or all, below *gallery*, and return their paths."""
    gallery.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for scene in SCENES:
        wanted = [shot for shot in scene.shots if not names or shot.name in names]
        if wanted:
            with tempfile.TemporaryDirectory() as folder:
                made += taken(scene, wanted, Path(folder), gallery)
    return made


def taken(scene: Scene, wanted: Sequence[Shot], work: Path, gallery: Path) -> Iterator[Path]:
    """The *wanted* pictures of one scene, worked out below *work*."""
    study = scene.write(work / "in")
    for rule in dict.fromkeys(shot.rule for shot in wanted):
        mine = [shot for shot in wanted if shot.rule == rule]
        found = results(rule, [shot.result for shot in mine if shot.page], study, work / rule)
        for shot in mine:
            page = f"{shot.result}-as-picture"
            objects = found.get(page) or (None if shot.page else found.get(shot.result))
            if objects is None:
                sys.exit(f"{shot.name}: {rule} made {', '.join(found)}")
            image = shown(objects, shot)
            if shot.page and image.height > image.width:  # of a report
                image = Image.fromarray(written_part(np.asarray(image)))
            yield save(image, gallery / f"{shot.name}.png")


def results(rule: str, pages: Sequence[str], paths: Sequence[Path], out: Path) -> dict[str, list[Dataset]]:
    """Run a ready rule as `pacsnode process` does: folder of each result → its objects in order.

    Results in *pages* also go as pictures. Ends where the rule does not run, and says why.
    """
    text = (EXAMPLES / f"{rule}.yaml").read_text(encoding="utf-8")
    for name in pages:
        text = re.sub(rf"\{{what: {name},(?![^}}]*\bas:)", f"{{what: {name}, as: [picture],", text)
    file = out.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    made: dict[str, list[Dataset]] = {}
    why = []
    for one in run_rule(file, list(paths), out):
        if one.ended is None or not one.ended.products:
            why.append(one.ended.reason if one.ended else one.judged.because)
            continue
        for product in one.ended.products:
            made.setdefault(Path(product.path).parent.name, []).append(dcmread(one.folder / product.path))
    if not made:
        sys.exit(f"{rule}: {'; '.join(why)}")
    return made


def shown(objects: Sequence[Dataset], shot: Shot) -> Image.Image:
    """The image or frame at the shot's place, as its object says it is to be shown, its pixels square."""
    ordered = sorted(objects, key=lambda ds: int(ds.get("InstanceNumber") or 0))
    frames = [(ds, k) for ds in ordered for k in range(int(ds.get("NumberOfFrames") or 1))]
    ds, k = frames[round(shot.place * (len(frames) - 1))]
    pixels = ds.pixel_array
    if int(ds.get("NumberOfFrames") or 1) > 1:
        pixels = pixels[k]
    if pixels.ndim == 2:
        pixels = windowed(ds, pixels)
    image = Image.fromarray(pixels)
    spacing = ds.get("PixelSpacing")
    if spacing and abs(float(spacing[0]) / float(spacing[1]) - 1) > 0.01:
        height = round(image.height * float(spacing[0]) / float(spacing[1]))
        image = image.resize((image.width, height), Image.Resampling.BICUBIC)
    return image


def windowed(ds: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Grey values through the object's own window (PS3.3 C.11.2), its whole range where it has none."""
    values = pixels * float(ds.get("RescaleSlope") or 1) + float(ds.get("RescaleIntercept") or 0)
    centre, width = (ds.get(name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        low, high = float(values.min()), float(values.max())
    else:
        first = [
            float(v[0] if isinstance(v, (list, tuple)) or hasattr(v, "__iter__") else v)
            for v in (centre, width)
        ]
        low, high = first[0] - first[1] / 2, first[0] + first[1] / 2
    grey = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    return (255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey).astype(np.uint8)


def save(image: Image.Image, path: Path) -> Path:
    """Write *image* with a longer side of 512 pixels, with few colours, so that it is small."""
    scale = SIDE / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if image.mode == "RGB":
        image = image.quantize(192, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    return path


def page() -> str:
    """The page that shows them."""
    parts = [_HEAD]
    for heading in dict.fromkeys(scene.heading for scene in SCENES):
        shots = [shot for scene in SCENES if scene.heading == heading for shot in scene.shots]
        parts.append(f"\n## {heading}\n\n|{' |' * COLUMNS}\n|{'---|' * COLUMNS}\n")
        for first in range(0, len(shots), COLUMNS):
            row = shots[first : first + COLUMNS]
            empty = " |" * (COLUMNS - len(row))
            pictures = " | ".join(
                f"![{shot.title.replace('`', '')}](gallery/{shot.name}.png)" for shot in row
            )
            words = " | ".join(f"{shot.title} (`{shot.rule}`)" for shot in row)
            parts.append(f"| {pictures} |{empty}\n| {words} |{empty}\n")
    return "".join(parts)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for picture in make(sys.argv[1:]):
        print(f"{picture} {picture.stat().st_size / 1000:.0f} kB", flush=True)
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")
