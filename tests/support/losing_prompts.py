"""The prompts that make the pipeline of tests/pipelines/make_believe_cuda.py lose its device."""

LOSE, LOSE_IN_A_LIBRARY = "lose the device", "lose the device in cuBLAS"
