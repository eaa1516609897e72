"""For plugin authors and for us: phantoms, calls like the node's, and golden results."""

from node.testing.chest import CHEST_GRID, Chest, chest_volume
from node.testing.golden import assert_golden
from node.testing.nuclear import (
    Phase,
    as_seen,
    flood_frames,
    kidney_frames,
    lung_frames,
    nuclear_picture,
)
from node.testing.nuclear_files import write_nm_image, write_nm_tomo
from node.testing.phantoms import (
    HOUNSFIELD,
    Blob,
    Grid,
    body_volume,
    disc_picture,
    head_volume,
    nodules,
    ramp_volume,
    sine_recording,
    sphere_volume,
)
from node.testing.running import run_operator, run_rule
from node.testing.segments import ball_mask, write_segmentation
from node.testing.series import Series, write_ct_series, write_mr_series, write_pet_series

__all__ = [
    "CHEST_GRID",
    "HOUNSFIELD",
    "Blob",
    "Chest",
    "Grid",
    "Phase",
    "Series",
    "as_seen", "assert_golden",
    "ball_mask",
    "body_volume",
    "chest_volume",
    "disc_picture",
    "flood_frames",
    "head_volume",
    "kidney_frames",
    "lung_frames",
    "nodules",
    "nuclear_picture",
    "ramp_volume",
    "run_operator",
    "run_rule",
    "sine_recording",
    "sphere_volume",
    "write_ct_series",
    "write_mr_series",
    "write_nm_image",
    "write_nm_tomo",
    "write_pet_series",
    "write_segmentation",
]  # fmt: skip
