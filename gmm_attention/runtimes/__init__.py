"""What computes the float network: TensorFlow or ONNX Runtime, behind one protocol."""
