"""TFLite files: reading, counting and running them."""
