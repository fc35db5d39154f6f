"""What things cost and how good they are."""
