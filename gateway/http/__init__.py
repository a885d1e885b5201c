"""HTTP itself: problem documents, parameters, bodies, limits, waitress."""
