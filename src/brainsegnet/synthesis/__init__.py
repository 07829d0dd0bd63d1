"""Phantoms: heads and lesions grown from a seed."""
