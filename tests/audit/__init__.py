"""Tests of the audit of pseudo-negatives."""
