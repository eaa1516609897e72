"""As what a result goes to a destination: the first of its forms that the destination shows. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

SHOWN_AS = {
    "image": "images", "picture": "images", "tiles": "images", "segmentation": "SEG", "parametric_map": "PM",
    "report": "SR", "document": "PDF", "key_images": "KO", "presentation": "PR", "recording": "waveforms",
}  # fmt: skip
"""`Product.kind` → the word of a peer's `shows`."""


def chosen(forms: Sequence[str], native: str, shows: Collection[str] | None) -> str:
    """The kind to send, of *forms* (best first; empty: *native* only); *shows* None is everything.

    Where the destination shows none of them the first one goes: what a rule asks for is sent, and a
    viewer that does not show it is no reason to lose it. So does a rejection note, which nobody shows.
    """
    wanted = tuple(forms) or (native,)
    if shows is None:
        return wanted[0]
    return next((form for form in wanted if SHOWN_AS.get(form) in shows), wanted[0])
