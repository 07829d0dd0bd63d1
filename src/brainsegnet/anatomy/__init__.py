"""Anatomical label maps (procedural, from FreeSurfer or from a template), and the territories of arteries."""
