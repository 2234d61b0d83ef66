"""Chains of boxes from frame to frame: frames between the stored ones, the rule of a link, and how pure chains are."""
