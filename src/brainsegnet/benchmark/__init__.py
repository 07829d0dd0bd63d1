"""Networks trained and tested side by side, and models ranked by their scores."""
