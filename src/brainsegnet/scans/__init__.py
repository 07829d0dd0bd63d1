"""Scans on disk: image files, and the folders and tables that public data sets come in."""
