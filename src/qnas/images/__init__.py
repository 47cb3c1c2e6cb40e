"""Images: files, resizing, quality."""
