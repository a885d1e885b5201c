"""What a job leaves: result records, PNG text, previews."""
