"""The network, its fused form, its weights, its card, and model folders."""
