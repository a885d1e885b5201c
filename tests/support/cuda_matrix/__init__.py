"""The worker's pipeline on a make-believe CUDA device beside the CPU, one part in one process.

`python -m tests.support.cuda_matrix PART FOLDER` prints one JSON line a case. It judges nothing but
what a case itself can see; tests hold the lines to what is expected.
"""
