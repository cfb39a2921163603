"""Weights in and out: the image encoder's backbone in the files of other libraries."""
