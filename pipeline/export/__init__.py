"""Exports a trained model: weights, a card that says where they come from, and an ONNX graph."""
