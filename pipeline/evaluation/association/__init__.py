"""Does an embedding associate? Given boxes, hidden identities, appearance only: the standing small benchmark."""
