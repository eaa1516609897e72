"""The one module a plugin imports: what operators take and give.

An operator is a typed function. Positional parameters are inputs (an earlier step's result or the
received series), keyword-only ones are options with a unit and a default:

    def emphysema_index(volume: Volume, mask: Mask, *, below: HU = -950) -> list[Measurement]:
        \"\"\"Share of lung voxels darker than *below*.\"\"\"

Axes are (slice, row, column) everywhere; *affine* maps array indices (k, j, i, 1) to millimetres in
DICOM's patient coordinates: x to the Left, y to Posterior, z to the Superior (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.errors import Broken, Refused
from node.model import Code

__all__ = [
    "HU",
    "NO_UNITS",
    "Broken",
    "Channel",
    "Code",
    "Degrees",
    "Document",
    "FractionalMask",
    "Graphic",
    "KeyImages",
    "Level",
    "Map",
    "Mask",
    "Measurement",
    "Mm",
    "Number",
    "Picture",
    "Presentation",
    "Recording",
    "Refused",
    "Region",
    "Remark",
    "Report",
    "Segments",
    "Stack",
    "StoredSegment",
    "Tiles",
    "Unit",
    "Volume",
    "Waveform",
    "affine_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """Annotation of an option: the UCUM unit its number is in, whatever unit the rule wrote."""

    ucum: str


HU = Annotated[float, Unit("[hnsf'U]")]
"""CT number (UCUM `[hnsf'U]`)."""
Mm = Annotated[float, Unit("mm")]
"""Millimetres."""
Degrees = Annotated[float, Unit("deg")]
"""Degrees of arc."""
Number = float
"""A number in the unit of the volume it is compared with."""


def affine_of(origin: NDArray[Any], axes: NDArray[Any], spacing: NDArray[Any]) -> NDArray[np.float64]:
    """The 4 x 4 index-to-patient matrix from the first voxel's centre, unit axes (columns), mm per index."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes, float) * np.asarray(spacing, float)
    affine[:3, 3] = origin
    return affine


SAME_PLACE_MM = 1e-3
"""Grids whose corners agree this well are one grid, geometry having gone through decimal text (DS)."""


NO_UNITS = Code("1", "UCUM", "no units")
"""The unit of arbitrary intensities."""


class _Grid:
    """Geometry shared by everything that lives on a voxel grid."""

    array: NDArray[Any]
    affine: NDArray[np.float64]

    def same_grid(self, other: _Grid) -> bool:
        """Whether voxel (k, j, i) is at the same place in both, and both have as many."""
        if self.array.shape != other.array.shape:
            return False
        ends = np.array([[0, n - 1] for n in self.array.shape])
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
        apart = (self.affine - other.affine)[:3] @ np.c_[corners, np.ones(len(corners))].T
        return bool(np.abs(apart).max() < SAME_PLACE_MM)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Millimetres between neighbours along (slice, row, column) indices."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    @property
    def axes(self) -> NDArray[np.float64]:
        """3 x 3: column *a* is the unit vector of array axis *a* in patient coordinates."""
        return self.affine[:3, :3] / self.spacing

    @property
    def origin(self) -> NDArray[np.float64]:
        """Centre of voxel (0, 0, 0), mm."""
        return self.affine[:3, 3]

    @property
    def voxel_volume(self) -> float:
        """mm³ of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True, eq=False)
class Volume(_Grid):
    """A scalar image on a regular grid, already rescaled to *unit*."""

    array: NDArray[Any]
    """(slices, rows, columns), real-world values."""
    affine: NDArray[np.float64]
    """4 x 4, array index → LPS millimetres; its upper 3 x 3 has orthogonal columns."""
    unit: Code
    """UCUM unit of the values; `1` (no units) for arbitrary MR intensities."""
    valid: NDArray[np.bool_] | None = None
    """False where the scanner padded (outside the field of view); None when every voxel was measured."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Named facts an operator may ask for: `modality` (CT, MR, PT, NM), `slice_thickness` (mm), `b_value`,
    `frame_of_reference` (UID) …"""


@dataclass(frozen=True, eq=False)
class Stack:
    """Volumes of one series on one grid, told from each other by what was varied: b-value, time or echo."""

    volumes: tuple[Volume, ...]
    """In ascending order of what *by* names. The `facts` of each say its own values: `b_value` (s/mm²),
    `gradient` (unit vector in patient coordinates), `directionality`, `echo_time`, `inversion_time`,
    `repetition_time` (ms), `flip_angle` (degrees), `time` (s from the first), `part` (its place, from 0)."""
    by: tuple[str, ...] = ()
    """The facts in which they differ, the slowest first."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What holds for all of them."""


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """Which segment of which received object a mask is, so that reports can refer to it."""

    sop_uid: str
    """SOP Instance UID of the segmentation."""
    number: int
    """Segment Number."""


@dataclass(frozen=True, eq=False)
class Mask(_Grid):
    """One segment: which voxels belong to it, and what it is."""

    array: NDArray[np.bool_]
    affine: NDArray[np.float64]
    label: str
    """Shown to people: Segment Label."""
    category: Code
    """Segmented Property Category (CID 7150)."""
    type: Code
    """Segmented Property Type (CID 7151 …)."""
    description: str = ""
    """How it was made: Segment Algorithm Name or Description."""
    laterality: Code | None = None
    """Segmented Property Type Modifier (CID 244), e.g. Left (7771000, SCT)."""
    stored: StoredSegment | None = None
    """The received segment that this is, on whatever grid; None where it was made here."""


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one segmentation object, all on one grid."""

    masks: tuple[Mask, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`frame_of_reference` (UID)."""


@dataclass(frozen=True, eq=False)
class FractionalMask(_Grid):
    """One segment with a share or a probability per voxel: a fractional segmentation (PS3.3 C.8.20.2.3)."""

    array: NDArray[np.floating[Any]]
    """(slices, rows, columns), 0 to 1."""
    affine: NDArray[np.float64]
    label: str
    category: Code
    type: Code
    kind: Literal["PROBABILITY", "OCCUPANCY"] = "PROBABILITY"
    """Segmentation Fractional Type (0062,0010)."""
    description: str = ""


@dataclass(frozen=True, eq=False)
class Map(_Grid):
    """A measured quantity on a voxel grid: a parametric map (PS3.3 A.75)."""

    array: NDArray[np.floating[Any]]
    """(slices, rows, columns), real-world values in *unit*."""
    affine: NDArray[np.float64]
    quantity: Code
    """What was measured: the value of Quantity (246205007, SCT), e.g. Apparent Diffusion Coefficient."""
    unit: Code
    """UCUM."""
    valid: NDArray[np.bool_] | None = None
    """False where nothing could be computed; those voxels are stored as NaN."""
    label: str = "MAP"
    """Content Label and what people read beside the scale."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`window` (centre, width) in which it is shown; `description`: how it was made, in a sentence; `definition`:
    pairs of a concept of CID 9000 and its Code, or its (number, Code of the unit)."""


@dataclass(frozen=True, eq=False)
class Region:
    """One calibrated region of an ultrasound image (PS3.3 C.8.5.5)."""

    box: tuple[int, int, int, int]
    """First row, first column, one past the last row, one past the last column."""
    kind: str
    """2D, M_MODE, SPECTRAL, WAVEFORM, GRAPHICS or OTHER, from Region Spatial Format."""
    delta: tuple[float, float]
    """Physical step per row and per column; signed as the scanner wrote it."""
    units: tuple[Code, Code]
    """UCUM units of *delta*."""
    reference: tuple[int, int] | None = None
    """Row and column, within the region, where the physical values are zero or *reference_value*."""
    reference_value: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, or the frames of a cine, that is no slice of a volume: radiograph, ultrasound, photograph."""

    array: NDArray[Any]
    """(frames, rows, columns), real-world values in *unit*; or (frames, rows, columns, 3): RGB, uint8."""
    unit: Code = NO_UNITS
    spacing: tuple[float, float] | None = None
    """mm between rows and between columns; None where the image is not calibrated."""
    plane: Literal["", "patient", "detector"] = ""
    """Where *spacing* holds: in the patient (calibrated), or on the detector (magnified; PS3.3 10.7.1.3)."""
    valid: NDArray[np.bool_] | None = None
    """(frames, rows, columns); None where every pixel was measured."""
    times: NDArray[np.float64] | None = None
    """Milliseconds from the first frame, per frame; None where unknown or there is one frame."""
    regions: tuple[Region, ...] = ()
    inverted: bool = False
    """Low values are shown bright: MONOCHROME1. The values themselves are as measured."""
    title: str = ""
    """What a capture shows, for people."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`modality`, `body_part`, `view`, `laterality`, `window` (centre, width) …; of an operator that knows it also
    `shown_orientation`: to which sides of the patient columns and rows count up, as ("L", "F") (PS3.3 C.7.6.1.1.1);
    `remarks` (tuple of Remark): of a graph, what it does not show, for the run's event."""

    @property
    def colour(self) -> bool:
        """Whether it is RGB."""
        return self.array.ndim == 4


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel of a waveform."""

    label: str
    source: Code | None
    """Channel Source, e.g. Lead I (2:1, MDC)."""
    unit: Code
    """UCUM unit of its samples, e.g. uV."""
    band: tuple[float | None, float | None] = (None, None)
    """Filter Low and High Frequency, Hz."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """One multiplex group: channels sampled together (PS3.3 C.10.9)."""

    array: NDArray[np.float64]
    """(channels, samples), in each channel's unit; NaN where the recorder padded."""
    frequency: float
    """Samples per second, Hz."""
    channels: tuple[Channel, ...]
    label: str = ""
    """Multiplex Group Label, e.g. RHYTHM, MEDIAN BEAT."""
    original: bool = True
    """Waveform Originality: recorded, not computed."""
    offset: float = 0.0
    """Multiplex Group Time Offset, ms."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What an ECG, EEG or other recorder stored: one or several groups of channels."""

    groups: tuple[Waveform, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Level:
    """One magnification of a whole slide, read tile by tile."""

    rows: int
    columns: int
    """Of the total pixel matrix."""
    spacing: tuple[float, float]
    """mm between rows and between columns."""
    tile: tuple[int, int]
    """Rows and columns of a tile."""
    read: Callable[[int, int], NDArray[np.uint8]]
    """(tile row, tile column) → (rows, columns, 3) RGB or (rows, columns) grey; edge tiles are whole tiles."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """A digitised slide: its levels, the finest first (PS3.3 A.32.8)."""

    levels: tuple[Level, ...]
    origin: tuple[float, float] = (0.0, 0.0)
    """mm: X and Y Offset in Slide Coordinate System of the total pixel matrix."""
    orientation: tuple[float, float, float, float, float, float] = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
    """Image Orientation (Slide)."""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Document:
    """A page or several as PDF."""

    pdf: bytes
    title: str
    """Document Title."""
    concept: Code | None = None
    """What kind of document: Concept Name Code (BCID 7020)."""


@dataclass(frozen=True, eq=False)
class KeyImages:
    """A selection of received images, and why (PS3.3 A.35.4, TID 2010)."""

    title: Code
    """Document title of CID 7010, e.g. Of Interest (113000, DCM)."""
    images: tuple[int, ...]
    """Indices of slices, or of pictures and their frames, in the order in which the operator got them."""
    text: str = ""


@dataclass(frozen=True, eq=False)
class Graphic:
    """One mark on one received image (PS3.3 C.10.5)."""

    image: int
    kind: Literal["POINT", "POLYLINE", "CIRCLE", "ELLIPSE"]
    points: tuple[tuple[float, float], ...]
    """(row, column) in pixels, 0 at the centre of the first; CIRCLE: centre and a point on it."""
    text: str = ""


@dataclass(frozen=True, eq=False)
class Presentation:
    """How received images are to be shown: a softcopy presentation state (PS3.3 A.33.1)."""

    label: str
    """Content Label: capital letters, digits, blanks and underscores."""
    description: str = ""
    window: tuple[float, float] | None = None
    """Centre and width, in the images' unit."""
    inverted: bool = False
    graphics: tuple[Graphic, ...] = ()


@dataclass(frozen=True, eq=False)
class Measurement:
    """One number with its meaning: a NUM content item of TID 300 / 1419."""

    name: Code
    """The quantity, e.g. Volume (118565006, SCT)."""
    value: float
    unit: Code
    """UCUM."""
    derivation: Code | None = None
    """Mean, Maximum …: TID 1419 Derivation (121401, DCM)."""
    method: Code | None = None
    region: Mask | None = None
    """What was measured; None for the whole volume."""
    site: Code | None = None
    """Finding Site (363698007, SCT) where there is no region, or its type does not say it."""
    laterality: Code | None = None
    """CID 244, with *site*."""


COMMENT = Code("121106", "DCM", "Comment")


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence of a report: why a number is missing, or what it rests on."""

    text: str
    name: Code = COMMENT
    """What it is about."""
    missing: bool = False
    """It says why a number is not there: that is said in the run's event as well."""


@dataclass(frozen=True, slots=True)
class Report:
    """Numbers with the sentences that belong to them; either may be missing, but not both."""

    measurements: tuple[Measurement, ...]
    remarks: tuple[Remark, ...] = ()
