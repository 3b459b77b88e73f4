"""Arrays only: spectra and masks."""
