"""Decoding any file to exact samples, with libsndfile and ffmpeg, even if headers are wrong."""
