"""A survey's own files: found, laid out, and what its record gives."""
