"""From survey files to a field: FITS images, their headers, noise planes, masks and backgrounds."""
