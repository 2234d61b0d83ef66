"""Data sets made from data sets, without decoding a frame: filtered, merged, split."""
