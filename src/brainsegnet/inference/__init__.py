"""Engines, tiled inference, and the segmentation of one case or many."""
