"""Send: associations to destinations and what came of each object."""
