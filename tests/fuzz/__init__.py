"""Fuzzing of every format that is read: ``python -m tests.fuzz``, or ``make fuzz``."""
