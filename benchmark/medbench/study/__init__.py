"""Studies: claims of papers as comparisons that anybody can run."""
