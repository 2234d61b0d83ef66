"""How far an output is, read from its files alone, on any machine: neither Ray nor PyTorch is imported here."""
