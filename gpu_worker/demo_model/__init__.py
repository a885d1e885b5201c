"""The built-in demonstration model, in diffusers' own layout, and the recipe that trained it."""
