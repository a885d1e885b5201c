"""What is known of the request's fields beyond their checks: their names, help and places."""
