"""What CT headers say of contrast and kernel, and what they leave open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peers
import pytest
from pydicom import Dataset
from volume_phantoms import series

from node.read.ct_facts import UNNAMED, ct_facts
from node.read.volume import load


def header(**said: Any) -> Dataset:
    """A header that says this, and nothing else."""
    ds = Dataset()
    for keyword, value in said.items():
        setattr(ds, keyword, value)
    return ds


def item(**said: Any) -> list[Dataset]:
    """A sequence of one item."""
    return [header(**said)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ""),
        ({"ContrastBolusAgent": "NONE"}, ""),
        ({"ContrastBolusAgent": "no"}, ""),
        ({"ContrastBolusAgent": "Iomeron 400"}, "Iomeron 400"),
        ({"ContrastBolusAgent": ""}, None),
        ({"ContrastBolusAgent": "", "ContrastBolusVolume": "0"}, None),
        ({"ContrastBolusAgent": "", "ContrastBolusVolume": "80"}, UNNAMED),
        ({"ContrastBolusRoute": "IV"}, UNNAMED),
        ({"ContrastBolusAgentSequence": item(CodeMeaning="Iohexol")}, "Iohexol"),
        ({"ContrastBolusAgentSequence": item(CodeMeaning="")}, UNNAMED),
        (
            {
                "ContrastBolusAgentSequence": item(CodeMeaning="Iohexol"),
                "ContrastBolusUsageSequence": item(ContrastBolusAgentAdministered="NO"),
            },
            "",
        ),
        (
            {
                "ContrastBolusAgentSequence": item(CodeMeaning="Iohexol"),
                "ContrastBolusUsageSequence": item(ContrastBolusAgentAdministered="YES"),
            },
            "Iohexol",
        ),
    ],
)
def test_contrast_as_the_modules_say_it(said: dict[str, Any], expected: str | None) -> None:
    """No module: none was given. An agent, or anything else of its module: one was. An empty agent says neither."""
    assert ct_facts([header(**said)] * 2).get("contrast") == expected


def test_one_slice_with_contrast_is_a_stack_with_contrast() -> None:
    """Who mixes slices with and without is told of the agent; an unknown slice among native ones leaves it open."""
    native, empty, after = header(), header(ContrastBolusAgent=""), header(ContrastBolusAgent="Ultravist")
    assert ct_facts([native, after, native])["contrast"] == "Ultravist"
    assert ct_facts([empty, after])["contrast"] == "Ultravist"
    assert "contrast" not in ct_facts([native, empty])


def test_the_kernel_is_one_or_none() -> None:
    """Several values (kernel, strength of iteration) stay together; slices that differ have no kernel."""
    assert ct_facts([header(ConvolutionKernel=["Br40d", "3"])])["convolution_kernel"] == "Br40d\\3"
    assert "convolution_kernel" not in ct_facts(
        [header(ConvolutionKernel="B30f"), header(ConvolutionKernel="B70f")]
    )
    assert "convolution_kernel" not in ct_facts([header(ConvolutionKernel="B30f"), header()])


def test_a_volume_has_them(tmp_path: Path) -> None:
    """They are facts of a CT volume, beside thickness and tube voltage."""

    def change(ds: Dataset, k: int) -> None:
        ds.ConvolutionKernel, ds.KVP = ["I31f", "2"], "120"

    facts = load(series(tmp_path, change)).value.facts
    assert (facts["convolution_kernel"], facts["contrast"], facts["kvp"]) == ("I31f\\2", "", 120.0)


def test_a_real_scan_with_contrast() -> None:
    """The GE chest CT names its agent, kernel, voltage and thickness."""
    paths = sorted(peers.need_samples("CT", "crlm-1004-chest-abdomen").glob("*"))
    facts = load(paths).value.facts
    assert facts["contrast"] == "GASTRO & OMNI"
    assert (facts["convolution_kernel"], facts["kvp"], facts["slice_thickness"]) == ("STANDARD", 120.0, 5.0)
