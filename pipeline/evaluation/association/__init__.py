"""A small benchmark of association by appearance alone: boxes are given, identities are hidden."""
