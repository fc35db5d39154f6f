"""What things cost: bytes and FLOPs from shapes, and what compiled programs hold, send and take."""
