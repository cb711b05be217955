"""What `benchmarks/gpu.py` looks at on a device: one file a section, each with a `run(where)`."""
