"""From prompts to replies on the host: conversations made ids, batches planned, and run."""
