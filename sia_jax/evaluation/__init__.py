"""Methods compared: statistics, claims, calibration."""
