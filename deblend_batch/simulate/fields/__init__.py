"""Whole fields of sky with known truth."""
