"""PACSNode: a DICOM network node that keeps, routes and processes."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pacsnode")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
