"""Reports of a gate: the page for people, files for pipelines, the W&B mirror."""
