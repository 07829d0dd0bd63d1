"""Heads as label maps: procedural ones, FreeSurfer's, a template, and the territories of arteries."""
