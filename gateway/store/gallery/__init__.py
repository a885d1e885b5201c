"""What a gallery needs beside the records: searchable rows, labels, thumbnails."""
