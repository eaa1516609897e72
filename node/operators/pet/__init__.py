"""Positron emission tomography: Standardized Uptake Values, and what is measured in them."""
