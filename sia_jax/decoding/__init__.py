"""The sampler: arrays in, arrays out, one jitted program."""
