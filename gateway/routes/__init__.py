"""Resources of the native API, one file a family of paths."""
