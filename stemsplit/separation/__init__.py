"""The separator interfaces, and the separators that implement them."""
