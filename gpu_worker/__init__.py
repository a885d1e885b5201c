"""The GPU process: owns the diffusers pipeline, runs one job at a time, writes the result log."""
