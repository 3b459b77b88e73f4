"""How files appear on disk: whole or not at all, one writer each, here or elsewhere."""
