"""Pages and texts made from recorded results, and nothing else."""
