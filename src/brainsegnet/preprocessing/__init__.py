"""From a case to what the network sees, and back: orientation, brain box, intensities, slabs."""
