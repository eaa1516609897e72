"""Every element of a dataset at any depth, each by its row of the table; the source is only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from node.derive import values
from node.derive.deidentify import content, graphics, private, profile
from node.derive.deidentify.decide import (
    CLEAN,
    EMPTY,
    KEEP,
    MAP,
    REMOVE,
    UNLISTED_MOMENT,
    UNLISTED_NAME,
    Decision,
    decide,
    resolve,
)  # fmt: skip
from node.derive.deidentify.dummy import code, dummy, label, remark
from node.derive.deidentify.elements import (
    AnyElement,
    Encodings,
    ascii_of,
    items_of,
    name_of,
    place,
    plain,
    text_of,
    vr_in,
)
from node.derive.deidentify.known import Known
from node.derive.deidentify.moments import shifted
from node.derive.deidentify.profile import Profile
from node.derive.deidentify.secrets import Secrets
from node.derive.deidentify.table import Row, attributes
from node.derive.deidentify.words import cleaned
from node.derive.standard import Path
from node.derive.standard import attributes as types_of
from node.errors import Refused

_MOMENTS = frozenset({"DA", "DT", "TM"})
_FREE = frozenset({"LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_CODED = frozenset({"AE", "AS", "CS", "DS", "IS"})
_CLASSES = (
    "Class",
    "TransferSyntax",
    "CodingScheme",
    "ContextUID",
    "ContextGroup",
    "MappingResource",
    "Creator",
)
"""What is in the keyword of a UID that stands for a kind of thing, not for a thing."""
_KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
"""Key Object Selection Documents, rejection notes among them: without what they refer to they say nothing."""
_NEVER = frozenset({0x0000, 0x0002, 0x0004})
"""Groups of commands, of the file and of directories, which a dataset does not hold (E.1.1)."""
_PRIVATE_DESCRIPTIONS, _TEXT_VALUE = 0x00080300, 0x0040A160
_CHARACTER_SET, _DOCUMENT, _PIXELS = 0x00080005, 0x00420011, 0x7FE00010
_CODE_PARTS = frozenset(
    {"CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion"}
)
_DEEPEST = 60


@dataclass
class Walk:
    """One object on its way through; what was done is counted, never quoted."""

    profile: Profile
    secrets: Secrets
    known: Known
    sop_class: str
    days: int
    words: Collection[str]
    vouched: bool = False
    """A template of the site says that nobody is named in its pixels, or in the document it holds."""
    refers: bool = False
    """The object lists what it refers to (PS3.3 C.12.2), and so keeps its references, to what goes with it."""
    done: Counter[str] = field(default_factory=Counter)

    def dataset(
        self, source: Dataset, path: Path = (), inherited: Encodings = ("iso8859",), descriptive: bool = False
    ) -> Dataset:
        """*source* as the profile leaves it; *descriptive*: inside a sequence whose texts are descriptors."""
        if len(path) > _DEEPEST:
            raise Refused(f"its sequences are nested deeper than {_DEEPEST}")
        made = Dataset()
        encodings = values.encodings_of(source, inherited)
        for tag in sorted(source.keys()):
            if tag == _PIXELS and not path:
                continue  # beside the header (`pixels.Pixels`)
            if tag.group in _NEVER or tag.element == 0 or tag == _PIXELS:  # a picture in a sequence, unjudged
                self.done["removed"] += 1
                continue
            for element in self._element(source, tag, path, encodings, descriptive):
                place(made, element)
        return made

    def _element(
        self, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings, descriptive: bool
    ) -> Iterable[AnyElement]:
        if tag.group % 2:
            return private.kept(self, source, tag, path, encodings)
        if tag.group & 0xFF00 in (0x5000, 0x6000) and tag.group & 0xFF <= 0x1E:
            return graphics.plane(self, source, tag, encodings)
        if tag == _PRIVATE_DESCRIPTIONS:
            return self.removed()
        row = attributes().get(int(tag))
        if row is None and not dictionary_has_tag(tag):
            raise Refused(f"{name_of(tag)} is an attribute that this version does not know")
        vr = vr_in(source, tag)
        if row is None:
            row = UNLISTED_MOMENT if vr in _MOMENTS else UNLISTED_NAME if vr == "PN" else None
        if row is None:
            return self._unlisted(source, tag, vr, (*path, keyword_for_tag(tag)), encodings, descriptive)
        return self.applied(row, source, tag, vr, (*path, name_of(tag)), encodings)

    # --- what the table names

    def applied(
        self, row: Row, source: Dataset, tag: BaseTag, vr: str, path: Path, encodings: Encodings
    ) -> list[AnyElement]:
        """The element *tag* after the action that *row* asks for."""
        decision = decide(row, self.profile.options)
        if decision.code == KEEP and vr != "UN":  # else nobody can tell what it is
            self.done["kept"] += 1
            return [self.recursed(source, tag, path, encodings)] if vr == "SQ" else [plain(source, tag)]
        if decision.code == CLEAN:
            found = self._cleaned(decision, source, tag, vr, path, encodings)
            if found is not None:
                self.done["cleaned"] += 1
                return [found]
        return self.replaced(row.basic, source, tag, vr, path, encodings)

    def replaced(
        self, action: str, source: Dataset, tag: BaseTag, vr: str, path: Path, encodings: Encodings
    ) -> list[AnyElement]:
        """What the Basic Profile leaves of an element: nothing, an empty one, a dummy, or another UID."""
        kind = types_of(self.sop_class).get(path)
        action = MAP if "U" in action and self.refers else resolve(action, kind.type if kind else "")
        if action == REMOVE:
            return self.removed()
        if action == EMPTY:
            self.done["emptied"] += 1
            return [DataElement(tag, vr, [] if vr == "SQ" else None)]
        if action == MAP:
            return [self.mapped(source, tag, vr, path, encodings)]
        if tag == _DOCUMENT and self.vouched:
            return [plain(source, tag)]
        self.done["replaced"] += 1
        if vr == "SQ":
            return [self._dummy_items(source, tag, path, encodings)]
        text = text_of(source, tag, encodings) if vr in values.TEXT_VRS else ""
        return [DataElement(tag, vr, dummy(vr, keyword_for_tag(tag), text, self.secrets))]

    def removed(self) -> list[AnyElement]:
        """Nothing, counted."""
        self.done["removed"] += 1
        return []

    def mapped(self, source: Dataset, tag: BaseTag, vr: str, path: Path, encodings: Encodings) -> AnyElement:
        """UIDs replaced by those that stand for them; in a sequence, those in its items."""
        if vr == "SQ":
            return self.recursed(source, tag, path, encodings)
        self.done["uids"] += 1
        uids = text_of(source, tag, encodings).split("\\")
        return DataElement(
            tag, "UI", [self.secrets.uid(uid.strip(" \0")) for uid in uids if uid.strip(" \0")] or None
        )

    def recursed(
        self, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings, descriptive: bool = False
    ) -> DataElement:
        """A sequence, each of its items by the same rules."""
        items = [self.dataset(item, path, encodings, descriptive) for item in items_of(source, tag)]
        return DataElement(tag, "SQ", Items(items))

    def _dummy_items(self, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings) -> DataElement:
        keyword = keyword_for_tag(tag)
        if keyword == "ContentSequence":
            kept = (
                content.references(self, source, tag, path, encodings)
                if self.sop_class == _KEY_OBJECTS
                else ()
            )
            return DataElement(tag, "SQ", Items(kept or [remark()]))
        if keyword.endswith("CodeSequence"):
            return DataElement(tag, "SQ", Items([code()]))
        made = self.recursed(source, tag, path, encodings)
        if keyword == "GraphicAnnotationSequence":
            for item in made.value:
                item.TextObjectSequence = [label()]
                for gone in ("GraphicObjectSequence", "CompoundGraphicSequence"):
                    item.pop(gone, None)
        return made

    # --- cleaning

    def _cleaned(
        self, decision: Decision, source: Dataset, tag: BaseTag, vr: str, path: Path, encodings: Encodings
    ) -> AnyElement | None:
        """The element as its option cleans it; None where nothing of it can stay."""
        option = decision.option
        if option == profile.GRAPHICS:
            return graphics.drawn(self, source, tag, path, encodings)
        if option == profile.STRUCTURED_CONTENT:
            return content.sequence(self, source, tag, path, encodings)
        if vr == "SQ":
            return self._cleaned_items(source, tag, path, encodings, option == profile.DESCRIPTORS)
        if option == profile.SHIFTED_DATES:
            return self.moved(source, tag, vr, encodings)
        return self._cleaned_text(option, source, tag, vr, encodings) if vr in values.TEXT_VRS else None

    def _cleaned_text(
        self, option: str, source: Dataset, tag: BaseTag, vr: str, encodings: Encodings
    ) -> AnyElement | None:
        text = text_of(source, tag, encodings)
        if self.known.within(text):
            return None
        if option == profile.DEVICE:
            return plain(source, tag)
        made = cleaned(text, self.words)
        return DataElement(tag, vr, made) if made else None

    def _cleaned_items(
        self, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings, descriptive: bool
    ) -> DataElement | None:
        """A sequence whose texts are cleaned; a coded entry of a local scheme may say anything, and goes."""
        made = self.recursed(source, tag, path, encodings, descriptive)
        if descriptive:
            made.value = Items([item for item in made.value if not is_local(item)])
        return made if len(made.value) else None

    def moved(self, source: Dataset, tag: BaseTag, vr: str, encodings: Encodings) -> AnyElement | None:
        """A date or time as long before as every other of this patient; None where it cannot be moved."""
        if vr == "SH":  # Timezone Offset From UTC, which a shift by whole days leaves as it is
            return plain(source, tag)
        if vr not in _MOMENTS:
            return None
        found = [shifted(vr, value, self.days) for value in text_of(source, tag, encodings).split("\\")]
        if None in found:
            return None
        return DataElement(tag, vr, found if len(found) > 1 else found[0])

    # --- what the table does not name

    def _unlisted(
        self, source: Dataset, tag: BaseTag, vr: str, path: Path, encodings: Encodings, descriptive: bool
    ) -> list[AnyElement]:
        if vr == "SQ":
            if any("ValueType" in item for item in items_of(source, tag)):
                return [content.sequence(self, source, tag, path, encodings)]
            return [self.recursed(source, tag, path, encodings, descriptive)]
        if vr == "UI":
            kept = profile.UIDS in self.profile.retain or any(word in path[-1] for word in _CLASSES)
            return [plain(source, tag) if kept else self.mapped(source, tag, vr, path, encodings)]
        if vr == "UN":
            raise Refused(f"{path[-1]} came without a value representation that anyone could read it by")
        if vr in values.TEXT_VRS and tag != _CHARACTER_SET:
            return self._text(source, tag, vr, path, encodings, descriptive)
        return [plain(source, tag)]

    def _text(
        self, source: Dataset, tag: BaseTag, vr: str, path: Path, encodings: Encodings, descriptive: bool
    ) -> list[AnyElement]:
        """A text that no table suspects: as it is, unless it says what had to be removed elsewhere."""
        text = text_of(source, tag, encodings)
        if not self._harmless(text, tag, vr, path):
            self.done["cut"] += 1
            return self.replaced("X/Z/D", source, tag, vr, path, encodings)
        if tag == _TEXT_VALUE or (descriptive and vr in _FREE and path[-1] not in _CODE_PARTS):
            return [DataElement(tag, vr, cleaned(text, self.words) or dummy(vr, "", "", self.secrets))]
        return [plain(source, tag)]

    def _harmless(self, text: str, tag: BaseTag, vr: str, path: Path) -> bool:
        """Whether a text that no table suspects says nothing of what had to be removed.

        A code may be a word that is somebody's name, too: only optional ones are suspected, and no term of anatomy.
        """
        formed = vr in _CODED and not values.defect(tag, vr, text.encode("utf-8", "replace"), ("ascii",))
        kind = types_of(self.sop_class).get(path)
        if formed and (vr not in ("AE", "CS") or kind is None or kind.type != "3"):
            return True
        return not self.known.within(text) or (formed and cleaned(text) == " ".join(text.split()))


def is_local(item: Dataset) -> bool:
    """Whether a coded entry is of a scheme that somebody made up (PS3.16 8.2): 99 and something, or L."""
    scheme = ascii_of(item, "CodingSchemeDesignator")
    return "CodeMeaning" in item and (scheme.startswith("99") or scheme.upper() in ("", "L"))
