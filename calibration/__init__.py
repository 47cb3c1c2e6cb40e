"""Quantizes a trained float network after training, from a tamed representative set of images."""
