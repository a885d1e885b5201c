"""What only a GPU shows: `python -m bench.gpu` runs its parts one by one, each in its own process.

`bench/gpu.sh` sets up a bare machine first. docs/operations.md says what each part measures.
"""
