"""Magnetic resonance: shading, diffusion, contrast over time, relaxation."""
