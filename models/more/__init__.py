"""More weights and their cards, as package data: of `stemsplit_models` when installed."""
