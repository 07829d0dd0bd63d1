"""Studies of one patient over time: registered to the first, with volumes and lesions compared."""
