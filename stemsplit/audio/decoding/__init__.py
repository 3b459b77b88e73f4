"""From any file to exact samples: libsndfile, ffmpeg, and what to do where headers are wrong."""
