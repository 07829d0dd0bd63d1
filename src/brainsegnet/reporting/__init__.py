"""Reports on a training, a model or predictions; and what is in a file or folder."""
