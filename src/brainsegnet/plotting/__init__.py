"""Pictures: slices with overlays, curves, and distributions of scores."""
