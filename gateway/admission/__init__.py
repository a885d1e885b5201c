"""Whether a request is within what the workers can do; images become files."""
