"""Model folders, engines, and the prediction of one case or many."""
