"""What leaves: the provenance of a package, and the proof that it is whole."""
