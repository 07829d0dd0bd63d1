"""What makes the generated parts of the documents: tables of results, the command line page, and the count of prose.

`python -m documents` fills in the tables and writes the page; `python -m documents.prose` lists sentences to mend.
"""
