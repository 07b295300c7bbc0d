"""The QA report of a run: one self-contained page."""
