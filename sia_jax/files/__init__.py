"""Rules about foreign files and files that are written: the lowest stratum, which imports no other."""
