"""A trained model to take away: weights with a card that says where they come from, and the same as an ONNX graph."""
