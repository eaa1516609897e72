"""The used source images of a run, with what is read of them more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydicom.dataset import Dataset

from node.derive import geometry, values
from node.derive.classic import single_frame, single_frame_class
from node.derive.inherit import Inheritance, inherit


@dataclass(frozen=True)
class Sources:
    """The used source images, in slice order, with what is read of them more than once."""

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...] = ()
    """Per header: its frame number (from 1) in a multi-frame object, 0 for a single-frame one; () is all 0."""
    value: object = None
    """What the operators got: the Volume, Picture … of these headers; renditions are drawn over it."""
    others: tuple[Dataset, ...] = ()
    """Headers of further parts that went into the results, where parts come together."""
    stack: tuple[Sources, ...] = ()
    """Of a stack of volumes: the same for each of them, the others of the stack among its *others*."""
    remarks: tuple[str, ...] = ()
    """What had to be decided when they were read, in sentences: every report on them says it."""

    def behind(self, result: object) -> Sources:
        """These sources as *result* sees them: those of the one volume of a stack that its fact `part` names."""
        part = getattr(result, "facts", {}).get("part") if self.stack else None
        return self.stack[part] if isinstance(part, int) and 0 <= part < len(self.stack) else self

    @property
    def first(self) -> Dataset:
        """The header that stands for the study and the series."""
        return self.headers[0]

    @cached_property
    def sop_class(self) -> str:
        """SOP Class UID of the sources."""
        return self.text("SOPClassUID")

    @cached_property
    def image_class(self) -> str:
        """SOP Class UID of images derived from them: the classic one where the sources are enhanced."""
        return single_frame_class(self.sop_class)

    def frame(self, index: int) -> int:
        """Frame number of one source in its object, 0 for a single-frame object."""
        return self.frames[index] if self.frames else 0

    @cached_property
    def together(self) -> Sources:
        """These headers with those of further parts behind them, which stand for their objects as a whole."""
        if not self.others:
            return self
        frames = tuple(self.frame(i) for i in range(len(self.headers)))
        return Sources((*self.headers, *self.others), frames + (0,) * len(self.others))

    @cached_property
    def other_stacks(self) -> list[list[int]]:
        """Indices in `together` of the further parts, by series and orientation: only so neighbours have a distance."""
        stacks: dict[tuple[bytes, ...], list[int]] = {}
        for i, header in enumerate(self.others, len(self.headers)):
            key = tuple(_octets(header, name) for name in ("SeriesInstanceUID", "ImageOrientationPatient"))
            stacks.setdefault(key, []).append(i)
        return list(stacks.values())

    def in_place(self, index: int) -> bool:
        """Whether one of `together` lies in the frame of reference of these sources, or states none."""
        stated = _octets(self.together.headers[index], "FrameOfReferenceUID").rstrip(b"\0 ")
        own = _octets(self.first, "FrameOfReferenceUID").rstrip(b"\0 ")
        return not stated or not own or stated == own

    @cached_property
    def planes(self) -> list[geometry.Plane | None]:
        """One plane per source, None where it states none."""
        return [geometry.plane_of(header) for header in self.headers]

    @cached_property
    def gap(self) -> float:
        """Distance between neighbouring source slices, mm."""
        return geometry.gap_of(self.planes)

    @cached_property
    def encodings(self) -> Sequence[str]:
        """Python codecs of the sources' character set."""
        return values.encodings_of(self.first)

    @cached_property
    def _numbers(self) -> dict[str, float | None]:
        return {}

    @cached_property
    def _inherited(self) -> dict[str, Inheritance]:
        return {}

    def inherit(self, sop_class: str) -> Inheritance:
        """Read what an object of *sop_class* takes over; read once per class."""
        if sop_class not in self._inherited:
            headers = self.headers
            if sop_class == self.image_class != self.sop_class:
                headers = tuple(single_frame(header, sop_class) for header in headers)
            self._inherited[sop_class] = inherit(headers, sop_class)
        return self._inherited[sop_class]

    def text(self, keyword: str, index: int = 0) -> str:
        """Read one attribute of one source as text, values joined by backslashes; empty where absent."""
        element = self.headers[index].get_item(keyword)
        if element is None:
            return ""
        data = values.octets(element, self.encodings)
        vr = values.vr_of(element)
        found = values.decoded(data, self.encodings if vr in values.CHARSET_VRS else ("ascii",))
        return data.decode("ascii", "replace") if found is None else found

    def number(self, keyword: str) -> float | None:
        """Read a decimal on which all sources agree, else None; asked of the headers once."""
        if keyword not in self._numbers:
            try:
                found = {float(self.text(keyword, i)) for i in range(len(self.headers))}
            except ValueError:
                found = set()
            self._numbers[keyword] = found.pop() if len(found) == 1 else None
        return self._numbers[keyword]


def _octets(header: Dataset, keyword: str) -> bytes:
    element = header.get_item(keyword)
    return b"" if element is None else values.octets(element)
