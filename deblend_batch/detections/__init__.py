"""The input catalogue: detection tables in every common format, and the finding of sources."""
