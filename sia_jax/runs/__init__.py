"""What programs share: options, messages, progress, journals, provenance, interruption."""
