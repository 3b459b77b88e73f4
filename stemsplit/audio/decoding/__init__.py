"""From any file to exact samples: libsndfile, ffmpeg, and the handling of wrong headers."""
