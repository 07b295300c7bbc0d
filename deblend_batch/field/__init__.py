"""The input image: a Zarr group with pixels, photometry, PSF and WCS, and how FITS becomes one."""
