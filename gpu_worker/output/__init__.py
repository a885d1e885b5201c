"""Builds what a job leaves: result records, PNG text, previews."""
