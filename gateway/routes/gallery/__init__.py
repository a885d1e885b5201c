"""Resources of a gallery: search, thumbnails, stars, the trash, zip files, the stream of events."""
