"""What benchmarks time: systems that sample, by parts and kernel by kernel, and the baselines in PyTorch."""
