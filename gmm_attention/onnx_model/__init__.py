"""The network as ONNX graphs, made from an exported model's arrays; knows no bytes."""
