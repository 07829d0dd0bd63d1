"""Scores, tables and pictures."""
