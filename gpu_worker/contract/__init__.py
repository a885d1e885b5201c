"""What gateway and worker say to each other: requests, jobs, checks, messages. No I/O."""
