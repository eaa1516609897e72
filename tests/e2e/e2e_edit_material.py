"""What the tests of changed objects send, and how they look at what arrives."""

from __future__ import annotations

from pathlib import Path

import peers
from crash.crash_house import House, changed
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from send.sending_peers import Reports

from node.send.protocol import Destination
from node.send.scu import item_of, send_objects

EDITED = """
rule: all
purpose: Patients of the other hospital get its prefix and issuer.
owner: tests@hospital.example
when: {}
send:
  - what: received
    to: PACS
    edit:
      - prefix: {PatientID: H2-}
      - set: {IssuerOfPatientID: H2}
      - remove: [PatientComments]
"""
_KINDS = (
    "CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "test-SR.dcm", "rtplan.dcm",
    "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "liver_1frame.dcm",
    "examples_palette.dcm", "examples_ybr_color.dcm",
)  # fmt: skip


def of_every_kind(folder: Path) -> list[Path]:
    """Pydicom's test files of several kinds and transfer syntaxes, each under UIDs of its own."""
    found = []
    for number, name in enumerate(_KINDS):

        def change(ds: Dataset, number: int = number) -> None:
            ds.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number + 1}"
            ds.SeriesInstanceUID = ds.StudyInstanceUID = f"1.2.826.0.1.3680043.8.499.{number + 1}"

        found.append(changed(Path(str(get_testdata_file(name))), folder / name, change))
    return found


def send_as_they_are(site: House, files: list[Path]) -> None:
    """Send files byte for byte."""
    reports = Reports()
    to = Destination("NODE", "127.0.0.1", site.port, "PACSNODE", "CT01")
    items = [item_of(path, number) for number, path in enumerate(files, 1)]
    assert send_objects(to, items, reports.append) is None
    assert set(reports.kinds()) == {"stored"}, reports


def original_of(ds: Dataset) -> Dataset:
    """What the object says that it held before."""
    (found,) = ds.OriginalAttributesSequence[-1].ModifiedAttributesSequence
    return found  # type: ignore[no-any-return]


def complaints(path: Path) -> set[str]:
    """What dciodvfy finds wrong with it."""
    return {line.strip() for line in peers.dciodvfy(path)}
