"""What a job adds to a pipeline, and takes off again."""
