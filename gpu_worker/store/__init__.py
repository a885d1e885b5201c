"""The files that both processes agree on: their layout, their lines, and how they survive."""
