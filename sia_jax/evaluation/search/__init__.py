"""Search that a reward guides: ARGS, Transfer Q* and chunk-level beam search, over the engine."""
