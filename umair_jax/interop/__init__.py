"""Weights in and out: backbones and text encoders in the files of other libraries."""
