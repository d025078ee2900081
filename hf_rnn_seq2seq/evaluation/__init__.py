"""Decoding, scores, ensembles, work in parts, pictures of attention."""
