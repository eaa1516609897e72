"""Texts that are compared in a way their author hardly means: patterns without a star, stars without `matches`."""

from __future__ import annotations

from collections.abc import Iterator

from node.route.conditions import Condition, Test
from node.route.values import ORDERED, Kind
from node.route.when import Line
from node.shape import nearest

_TERMS = """
    AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT
    IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG
    RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA
    XA XAPROTOCOL XC AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF"""
_MODALITIES = frozenset(_TERMS.split())
"""Defined and retired terms of Modality (PS3.3 C.7.3.1.1.1)."""
_USUAL = {"MRI": "MR", "PET": "PT", "XR": "CR", "XRAY": "DX", "MAMMO": "MG", "CAT": "CT", "ULTRASOUND": "US"}


def doubtful(line: Line) -> Iterator[str]:
    """A sentence for each comparison of the line that is right, and hardly what was meant."""
    for test in _tests(line.condition):
        texts = [str(operand[0]) for operand in test.operands if operand]
        if test.op == "matches":
            yield from _patterns(line, texts)
        elif test.op in ("equals", "one_of", "has_all", "has_any", "excludes"):
            if line.attribute.kind in (Kind.TEXT, Kind.ANY) and any(set("*?") & set(text) for text in texts):
                yield f"{line.name}: * and ? are plain characters under {_named(test)}; for a pattern write matches"
            if line.name == "Modality":
                yield from _unknown_modalities(texts)


def _tests(condition: Condition) -> Iterator[Test]:
    yield from condition.tests
    for _, inner in condition.groups:
        for one in inner:
            yield from _tests(one)
    if condition.some is not None:
        yield from _tests(condition.some)


def _named(test: Test) -> str:
    return "a value alone" if test.op == "equals" else test.op


def _patterns(line: Line, texts: list[str]) -> Iterator[str]:
    plain = [text for text in texts if not set("*?") & set(text)]
    if plain and line.attribute.kind is not Kind.UID:
        alone = f"matches: {plain[0]} has no * or ?, so it fits that text alone"
        yield f"{line.name}: {alone}; for a part of it write *{plain[0]}*"
    if line.attribute.kind in ORDERED - {Kind.ANY}:
        kind = line.attribute.kind
        yield f"{line.name} is a {kind}, and matches looks at its spelling (1 is not 1.0); compare values"


def _unknown_modalities(texts: list[str]) -> Iterator[str]:
    for text in texts:
        word = text.upper()
        if word not in _MODALITIES and not set("*?") & set(word):
            hint = f"; did you mean {_USUAL[word]}?" if word in _USUAL else nearest(word, _MODALITIES)
            yield f"Modality: {word} is no term of the standard (PS3.3 C.7.3.1.1.1){hint}"
