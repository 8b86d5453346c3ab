"""The choices of --runtime, --precision and --device, in a module that imports nothing."""

RUNTIMES = ("auto", "onnx", "tensorflow")
PRECISIONS = ("float32", "bfloat16")
DEVICES = ("auto", "cpu", "gpu")
