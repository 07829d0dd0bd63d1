"""Training a network: which cases, by which recipe, the loop, what is kept of it, and its export."""
