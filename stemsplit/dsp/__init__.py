"""Signal processing on arrays: spectra and masks."""
