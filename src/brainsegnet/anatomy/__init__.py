"""Anatomical label maps: procedural, from FreeSurfer, from a template; and the territories of arteries."""
