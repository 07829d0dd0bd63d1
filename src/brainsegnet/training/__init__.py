"""Losses, augmentation, patches, curriculum and the loop."""
