"""What belongs to an image: noise, masks, where there are no data, and the PSF that is given."""
