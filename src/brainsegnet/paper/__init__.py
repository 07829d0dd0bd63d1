"""The paper's Tables 1 and 2, Figures 4 and 5, and the upload files of its challenges."""
