"""Jobs from their acceptance to their end: the broker, the queue, the journal."""
