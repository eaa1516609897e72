"""Derive: the only room that writes a DICOM header.

`write` makes files of a run's results, and the `gate` lets them leave or not. What they share: `sources` (what they
are made from), `identity` (their UIDs), `making` (clock, text, trail), `inherit` (what is taken over), `charset`,
`references` and `lineage`. Each kind has a module by its name: `image`, `segmentation`, `parametric_map`, `report` …;
`rendition` draws what a destination does not show. What changes received objects: `edit`, `deidentify`, `original`.
"""
