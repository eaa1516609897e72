"""The gallery: a page made of the table in its script, with every picture there, of one size, and small."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    """docs/make_gallery.py."""
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("make_gallery", DOCS / "make_gallery.py")
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules["make_gallery"] = made
        spec.loader.exec_module(made)
        return made
    finally:
        sys.path.remove(str(DOCS))


def test_the_page_shows_what_the_script_makes(gallery: ModuleType) -> None:
    """The page is current, no picture lies about unshown, and every rule is a ready one that makes this result."""
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == gallery.page()
    shots = [shot for scene in gallery.SCENES for shot in scene.shots]
    assert sorted(path.stem for path in gallery.GALLERY.iterdir()) == sorted(shot.name for shot in shots)
    for shot in shots:
        rule = (gallery.EXAMPLES / f"{shot.rule}.yaml").read_text(encoding="utf-8")
        assert f"what: {shot.result}," in rule


def test_pictures_are_of_one_size_and_small(gallery: ModuleType) -> None:
    """512 pixels on the longer side, and no page that takes long to load."""
    files = list(gallery.GALLERY.iterdir())
    for path in files:
        with Image.open(path) as image:
            assert max(image.size) == gallery.SIDE
    assert max(path.stat().st_size for path in files) < 150_000
    assert sum(path.stat().st_size for path in files) < 2_000_000
