"""Review in a browser: which pictures are asked about, what is kept of the answers, and the local server."""
