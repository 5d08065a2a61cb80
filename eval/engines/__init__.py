"""Engines: the same work in this process, in processes of accelerate, on Ray, or in a Slurm array."""
