"""One file a claim of the notes; `python -m experiments` runs them all and says which hold."""
