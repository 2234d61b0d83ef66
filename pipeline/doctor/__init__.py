"""Looks at a machine, its packages, its stores and its cluster before a long job does, and says how to mend them."""
