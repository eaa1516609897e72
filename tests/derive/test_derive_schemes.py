"""Private codes are declared: a report says whose scheme its own codes are of (PS3.3 C.12.1)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from derive_material import affine, complaints, ct_headers, job, numbers
from peers import pixelmed_sr
from pydicom import dcmread

from node.derive.sources import Sources
from node.derive.write import write
from node.operator import Code


def declared(folder: Path, *names: Code) -> list[tuple[str, ...]]:
    """The schemes that a report names whose numbers are called so; it is valid."""
    sources = Sources(tuple(ct_headers(3, 8, 7, affine((2.0, 0.7, 0.5)))))
    plain = numbers(None)[0]
    made = [replace(plain, name=name) for name in names]
    (product,) = write({"stats": made}, job("stats"), sources, folder)
    path = folder / product.path
    assert complaints(path) == set()
    assert pixelmed_sr(path) == []
    items = dcmread(path).get("CodingSchemeIdentificationSequence", ())
    return [
        (
            str(item.CodingSchemeDesignator),
            str(item.get("CodingSchemeName", "")),
            str(item.get("CodingSchemeResponsibleOrganization", "")),
        )
        for item in items
    ]


VOLUME = Code("118565006", "SCT", "Volume")
OURS = Code("LAA950", "99PACSNODE", "Low attenuation area")
THEIRS = Code("X", "99ACME", "Something of a plugin")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((VOLUME,), []),
        ((VOLUME, OURS), [("99PACSNODE", "PACSNode private codes", "PACSNode")]),
        ((THEIRS, OURS), [("99ACME", "", ""), ("99PACSNODE", "PACSNode private codes", "PACSNode")]),
    ],
    ids=["none", "ours", "a plugin's too"],
)
def test_private_schemes_are_named(
    tmp_path: Path, names: tuple[Code, ...], expected: list[tuple[str, ...]]
) -> None:
    """Ours with its name and who keeps it, a plugin's by its designator; standard ones need no such item."""
    assert declared(tmp_path, *names) == expected
