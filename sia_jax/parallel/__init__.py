"""Where arrays lie on devices."""
