"""What a run counts and records, and how it is read back: tally, ``run.json``, status, summary."""
