"""Derive: the only room that writes a DICOM header."""
