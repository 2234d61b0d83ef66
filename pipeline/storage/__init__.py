"""Files anywhere: every path in Trackmill is a URL that fsspec understands, and a plain path is one too."""
