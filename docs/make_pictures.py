"""Make the pictures of the README again: phantoms through `pacsnode process`, its results as PNG.

Run it from the repository's root: `.venv/bin/python docs/make_pictures.py`. Every picture is what a rule made
of a phantom and what the object itself says is to be shown; only the sheet around it is drawn here.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread

from node.testing import (
    Grid,
    Series,
    body_volume,
    head_volume,
    run_rule,
    write_ct_series,
    write_mr_series,
    write_pet_series,
)
from node.testing.pet import chest_uptake
from node.testing.relaxing import diffusion_stack, dynamic_stack, echo_stack
from node.testing.stacks import write_mr_stack

EXAMPLES = Path(__file__).parents[1] / "config" / "examples" / "rules"
PICTURES = Path(__file__).parent / "pictures"
CHEST = Grid((140, 176, 176), (2.0, 1.9, 1.9))
HEAD = Grid((40, 160, 160), (4.0, 1.5, 1.5))
LESION = (-34.0, 26.0, 24.0), 9.0
"""Centre and radius in mm of the bright sphere in `head_volume`."""

CORONAL = """
rule: picture-coronal
purpose: Axial chest CT gets coronal slabs.
owner: docs@pacsnode.example
when: {Modality: CT}
do:
  - reformat: {plane: coronal, thickness: 6 mm, every: 6 mm, combine: mean}
    as: slabs
send: [{what: slabs, to: PACS}]
"""
BODY = """
rule: picture-body
purpose: The body's outline and its measurements, each as a picture.
owner: docs@pacsnode.example
when: {Modality: CT}
do:
  - segment_body: {}
    as: body
  - statistics: {mask: body}
    as: measured
send:
  - {what: body, to: PACS, as: [segmentation, picture]}
  - {what: measured, to: PACS, as: [report, picture]}
"""
FUSED = """
rule: picture-fused
purpose: Diffusion in colour over the image without diffusion weighting.
owner: docs@pacsnode.example
when: {Modality: MR}
split: [b_value]
each_part: together
do:
  - fuse: {volume: part_1, other: part_2, opacity: 0.6, other_center: 400, other_width: 700}
    as: fused
send: [{what: fused, to: PACS}]
"""


def make(pictures: Path = PICTURES) -> list[Path]:
    """Make every picture below *pictures* and return their paths."""
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        chest = write_ct_series(
            work / "chest", body_volume(CHEST), series=Series("chest", description="Chest")
        )
        head = diffusion(work / "head")
        coronal = results(CORONAL, chest, work / "coronal")["slabs"]
        body = results(BODY, chest, work / "body")
        fused = results(FUSED, head, work / "fused")["fused"]
        pet = write_pet_series(
            work / "pet", chest_uptake(), series=Series("pet", study="chest", description="PET")
        )
        turning = results(example("pet-mip"), pet, work / "turning")["turning"]
        pet_ct = results(example("pet-ct-fusion"), [*chest, *pet], work / "pet-ct")["fused"]
        magnetic = of_magnetic_resonance(work)
    found = {
        "coronal": grey(coronal[round(0.36 * len(coronal))], (-100.0, 900.0)),
        "segmentation": frame(body["body-as-picture"], 0.62),
        "report": written_part(frame(body["measured-as-picture"], 0)),
        "fused": frame(fused, 0.67),
        "uptake": frame(turning, 0),
        "pet-ct": frame(pet_ct, 0.64),
        "adc": frame(magnetic["adc"], 0.6),
        "enhancement": frame(magnetic["pe"], 0.6),
        "relaxation": frame(magnetic["t2"], 0.6),
    }
    return [save(pixels, pictures / f"{name}.png") for name, pixels in found.items()]


def diffusion(folder: Path) -> list[Path]:
    """Write one MR series with b = 0 and b = 800 s/mm²: at 800 all but the lesion is dark."""
    still = head_volume(HEAD)
    away = HEAD.coordinates() - np.array(LESION[0]).reshape(3, 1, 1, 1)
    lesion = (away**2).sum(axis=0) <= LESION[1] ** 2
    weighted = type(still)(np.where(lesion, 700, np.rint(still.array * 0.15)), still.affine, still.unit)
    uid = Series("dwi").uid("series:dwi")
    made = []
    for b, volume in ((0, still), (800, weighted)):
        changes = {"SeriesInstanceUID": uid, "DiffusionBValue": float(b), "InstanceNumber": None}
        made += write_mr_series(
            folder / str(b), volume, series=Series(f"b{b}", study="dwi", description="DWI", changes=changes)
        )
    return made


def example(name: str) -> str:
    """The text of an example rule."""
    return (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")


def of_magnetic_resonance(work: Path) -> dict[str, list[Dataset]]:
    """Maps in colour, by the ready rules, of a head whose tissues are known: ADC, enhancement (PE), T2."""
    grid = Grid((15, 192, 192), (8.0, 1.25, 1.25))
    cases = {
        "adc": ("mr-adc", diffusion_stack(grid=grid, noise=150.0), "DWI"),
        "pe": ("mr-dce", dynamic_stack(grid=grid, noise=25.0), "T1 dyn"),
        "t2": ("mr-t2-map", echo_stack(grid=grid, noise=120.0), "T2 map"),
    }
    found = {}
    for name, (rule, stack, description) in cases.items():
        paths = write_mr_stack(work / f"mr-{name}", stack, series=Series(name, description=description))
        text = example(rule).split("\n---\n")[0]
        found[name] = results(text, paths, work / f"mr-{name}-out")[f"{name}_colours-as-picture"]
    return found


def results(rule: str, paths: list[Path], out: Path) -> dict[str, list[Dataset]]:
    """Run *rule* as `pacsnode process` does: folder of each result → its objects in order.

    Ends where the rule does not run, and says why.
    """
    file = out.with_suffix(".yaml")
    file.write_text(rule, encoding="utf-8")
    (one,) = run_rule(file, paths, out)
    if one.ended is None or not one.ended.products:
        sys.exit(f"{file.stem}: {one.ended.reason if one.ended else one.judged.because}")
    made: dict[str, list[Dataset]] = {}
    for product in one.ended.products:
        made.setdefault(Path(product.path).parent.name, []).append(dcmread(one.folder / product.path))
    return made


def grey(ds: Dataset, window: tuple[float, float]) -> np.ndarray:
    """One grey image through *window* (centre, width in HU), its pixels made square."""
    values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    low = window[0] - window[1] / 2
    shown = np.clip((values - low) / window[1], 0, 1) * 255
    rows, columns = (float(spacing) for spacing in ds.PixelSpacing)
    image = Image.fromarray(shown.astype(np.uint8))
    return np.asarray(
        image.resize((image.width, round(image.height * rows / columns)), Image.Resampling.BICUBIC)
    )


def frame(objects: list[Dataset], place: float) -> np.ndarray:
    """The frame, or the object, at *place* from 0 (first) to 1 (last)."""
    shapes = [(-1, ds.Rows, ds.Columns, *([3] if ds.SamplesPerPixel == 3 else [])) for ds in objects]
    frames = [f for ds, shape in zip(objects, shapes, strict=True) for f in ds.pixel_array.reshape(shape)]
    return frames[round(place * (len(frames) - 1))]


def written_part(page: np.ndarray) -> np.ndarray:
    """A page without its empty part: its upper end, down to the last line before a large gap."""
    written = np.flatnonzero((np.abs(page.astype(int) - int(np.median(page))) > 60).any(axis=1))
    gaps = np.flatnonzero(np.diff(written) > page.shape[0] // 6)
    last = written[gaps[0]] if len(gaps) else written[-1]
    return page[: last + written[0] // 2]


def save(pixels: np.ndarray, path: Path, height: int = 420) -> Path:
    """Write *pixels* as PNG of *height* rows, with few colours, so that it is small."""
    image = Image.fromarray(pixels)
    image = image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS)
    if image.mode == "RGB":
        image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    return path


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for picture in make():
        print(f"{picture} {picture.stat().st_size / 1000:.0f} kB")
