"""A make-believe CUDA device: tensors on `cuda:N` that live in the memory of a CPU build of torch.

`device.enter()` turns a whole process into one with such devices, before diffusers is imported.
`counters.COUNTERS`, `memory.DEVICES` and `faults.FAULTS` are what tests read and set. Kernels,
timing, fragmentation, overflow and quantised weights are not imitated.
"""
