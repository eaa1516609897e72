"""Operators for computed tomography: values in Hounsfield units, slices of the patient's body."""
