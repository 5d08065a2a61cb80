"""From a traits file to a plan that keeps its counts and rules exactly: read, solve, show, import and export."""
