"""Files: images, layouts of data sets, tables of cases, perfusion series and predictions."""
