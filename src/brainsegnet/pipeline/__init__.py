"""From a raw study to a result."""
