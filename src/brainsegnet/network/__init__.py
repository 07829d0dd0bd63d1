"""The network of the paper, its collapsed twin, and its weights on disk."""
