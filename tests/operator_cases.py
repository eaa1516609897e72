"""One call of every shipped operator, over phantoms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from node.operator import Code, Map, Segments, Volume
from node.operators.mr.diffusion import UM2_S
from node.process import registry
from node.testing import (
    Chest,
    Grid,
    ball_mask,
    body_volume,
    chest_volume,
    disc_picture,
    flood_frames,
    head_volume,
    kidney_frames,
    lung_frames,
    nuclear_picture,
    run_operator,
)
from node.testing.nuclear import Phase
from node.testing.pet import nema_volume, with_dose
from node.testing.relaxing import diffusion_stack, dynamic_stack, echo_stack, flip_stack

SMALL = Grid((6, 40, 40), (8.0, 6.0, 6.0))
PHASES = (Phase(20, 5000.0),)


def placed(volume: Volume) -> Volume:
    """*volume* in a frame of reference."""
    return replace(volume, facts={**volume.facts, "frame_of_reference": "1.2.3"})


@cache
def ct() -> Volume:
    """A chest that emphysema can be measured in."""
    facts = {
        "modality": "CT",
        "slice_thickness": 1.5,
        "convolution_kernel": "B31f",
        "kvp": 120.0,
        "contrast": "",
    }
    made = chest_volume(Grid((160, 60, 80), (1.5, 5.0, 5.0)), Chest(lung=(48.0, 70.0, 95.0)), noise=20.0)
    return placed(replace(made, facts={**made.facts, **facts}))


@cache
def pet() -> Volume:
    """Activity with all that an SUV needs."""
    return placed(with_dose(nema_volume(Grid((20, 40, 40), (5.0, 7.0, 7.0)), blur=8.0)))


@cache
def suv() -> Volume:
    """The same in SUV."""
    made: Volume = run_operator(registry.load("suv"), pet())
    return made


@cache
def lungs() -> Segments:
    """What is found in the chest."""
    made: Segments = run_operator(registry.load("segment_lungs"), ct())
    return replace(made, facts={"frame_of_reference": "1.2.3"})


def balls(volume: Volume) -> Segments:
    """Two regions."""
    liver = ball_mask(volume, 30.0, label="Liver")
    spleen = ball_mask(volume, 20.0, (30.0, 0.0, 0.0), label="Spleen")
    return Segments((liver, spleen), {"frame_of_reference": "1.2.3"})


def coefficient() -> Map:
    """A map."""
    array = np.linspace(0, 3000, 6 * 40 * 40).reshape(6, 40, 40).astype(np.float32)
    quantity, unit = Code("113041", "DCM", "Apparent Diffusion Coefficient"), UM2_S
    return Map(array, body_volume(SMALL).affine, quantity, unit)


def head(shift: float = 0.0) -> Volume:
    """A head of few voxels, moved by *shift* mm along each axis."""
    made = head_volume(Grid((12, 40, 40), (12.0, 6.0, 6.0)))
    affine = made.affine.copy()
    affine[:3, 3] += shift
    return placed(Volume(made.array, affine, made.unit, facts={"modality": "MR"}))


def kidneys() -> Any:
    """A renogram."""
    return nuclear_picture(kidney_frames(PHASES, seed=1), phases=PHASES, kind="DYNAMIC")


def views() -> Any:
    """Lungs from both sides."""
    return nuclear_picture(lung_frames(), ("anterior", "posterior"))


Case = tuple[Callable[[], tuple[Any, ...]], dict[str, Any]]
_BOXES = "left: 30, 70, 98, 106; right: 30, 22, 98, 58"
CASES: dict[str, Case] = {
    "as_volume": (lambda: (coefficient(),), {}),
    "adc": (lambda: (diffusion_stack(grid=SMALL, noise=20.0),), {}),
    "adc_fit": (lambda: (diffusion_stack(grid=SMALL, noise=20.0),), {}),
    "calcium_score": (lambda: (ct(), ball_mask(ct(), 90.0)), {"calibration": 0.8}),
    "choose_volume": (lambda: (diffusion_stack(grid=SMALL),), {"number": 2}),
    "connected_component": (lambda: (lungs().masks[0],), {}),
    "count_qa": (views, {}),
    "dce_subtract": (lambda: (dynamic_stack(grid=SMALL, noise=9.0),), {}),
    "emphysema": (lambda: (ct(), lungs()), {}),
    "first_order": (lambda: (suv(), balls(suv()).masks[0]), {}),
    "first_order_segments": (lambda: (suv(), balls(suv())), {}),
    "fuse": (lambda: (head(), head(4.0)), {"opacity": 0.4}),
    "geometric_mean": (views, {}),
    "histogram": (lambda: (suv(), balls(suv())), {}),
    "left_right": (views, {}),
    "mip": (lambda: (suv(),), {"plane": "sagittal"}),
    "mip_rotating": (lambda: (suv(),), {"views": 6}),
    "mip_turning": (lambda: (ct(),), {"center": 200.0, "width": 900.0, "views": 6}),
    "mip_uptake": (lambda: (suv(),), {"views": 6}),
    "n4": (lambda: (head(),), {}),
    "percent_enhancement": (lambda: (dynamic_stack(grid=SMALL, noise=9.0),), {"at": 2}),
    "reference_uptake": (lambda: (suv(), ball_mask(suv(), 60.0)), {}),
    "reformat": (lambda: (head(),), {"plane": "oblique", "thickness": 15.0, "tilt": 20.0}),
    "region": (lambda: (suv(), balls(suv())), {"name": "spleen"}),
    "region_statistics": (lambda: (ct(), lungs()), {}),
    "register_rigid": (lambda: (head(), head(3.0)), {}),
    "resample": (lambda: (head(),), {"spacing": 4.3}),
    "roi_ratio": (lambda: (views(),), {"regions": _BOXES, "reference": "left", "use": "geometric_mean"}),
    "segment_body": (lambda: (ct(),), {}),
    "segment_lungs": (lambda: (ct(),), {}),
    "segment_threshold": (lambda: (ct(),), {"at_least": 0.0}),
    "segment_uptake": (lambda: (suv(),), {"at_least": 4.0}),
    "show_map": (lambda: (coefficient(),), {"low": 0.0, "high": 3000.0}),
    "show_regions": (views, {"regions": _BOXES, "use": "anterior"}),
    "signal_enhancement_ratio": (lambda: (dynamic_stack(grid=SMALL, noise=9.0),), {"early": 2}),
    "slices": (lambda: (diffusion_stack(grid=SMALL),), {}),
    "smooth": (lambda: (head(),), {"width": 14.0}),
    "statistics": (lambda: (suv(), balls(suv()).masks[0]), {}),
    "subtract": (lambda: (head(), head()), {"scale": 0.3}),
    "suv": (lambda: (pet(),), {"normalisation": "bw"}),
    "t1_map": (lambda: (flip_stack(grid=SMALL, noise=9.0),), {}),
    "t2_map": (lambda: (echo_stack(grid=SMALL, noise=9.0),), {}),
    "time_activity": (lambda: (kidneys(),), {"regions": _BOXES}),
    "time_activity_values": (lambda: (kidneys(),), {"regions": _BOXES}),
    "time_to_peak": (lambda: (dynamic_stack(grid=SMALL, noise=9.0),), {}),
    "trace": (lambda: (diffusion_stack(grid=SMALL, noise=20.0),), {}),
    "uniformity": (lambda: (nuclear_picture(flood_frames(), spacing=6.4),), {}),
    "uptake": (lambda: (suv(), ball_mask(suv(), 60.0)), {}),
    "uptake_segments": (lambda: (suv(), balls(suv())), {}),
    "uptake_ratios": (lambda: (pet(), balls(pet())), {"reference": "spleen"}),
    "window": (lambda: (disc_picture(),), {"center": 500.0, "width": 1000.0}),
}
