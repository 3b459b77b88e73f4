"""All models: shipped, installed, plugins and spatial methods, and the facts about each."""
