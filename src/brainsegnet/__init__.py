"""Fast 3-D segmentation of brain lesions in multi-modal MRI."""
