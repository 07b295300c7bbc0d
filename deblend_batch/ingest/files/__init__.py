"""Image files of every format: FITS, ASDF, Zarr, Rubin's; opened once, read by windows."""
