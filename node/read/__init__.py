"""Read: the only room that opens received DICOM."""
