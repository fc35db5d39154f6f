"""Pages made from recorded results."""
