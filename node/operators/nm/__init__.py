"""Operators for nuclear medicine: planar, whole body and dynamic scintigrams, and floods of the camera itself."""
