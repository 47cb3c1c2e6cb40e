"""JSON documents as typed values: how they are read, and those that more than one part of qnas reads."""
