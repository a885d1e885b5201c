"""The files of the built-in model, in the layout of diffusers. `recipe` trained them."""
