"""The formats of files: writing, reading, counting and inspecting each."""
