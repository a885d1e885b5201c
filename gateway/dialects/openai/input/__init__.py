"""Reads what clients of the OpenAI images API send, and makes our requests of it."""
