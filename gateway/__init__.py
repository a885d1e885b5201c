"""The HTTP process and broker. Never imports torch, diffusers or transformers."""
