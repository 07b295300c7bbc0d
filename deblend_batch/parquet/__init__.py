"""Parquet files of strangers: what they announce is checked before it is decoded, in bounded memory."""
