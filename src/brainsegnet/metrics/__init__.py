"""Scores of label maps, statistics over cases, and tables of them."""
