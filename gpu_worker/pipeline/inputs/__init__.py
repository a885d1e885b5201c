"""What a job brings: its request, its images and its size, for the rooms that work on it."""
