"""Training: recipes, losses, the loop, and what watches it."""
