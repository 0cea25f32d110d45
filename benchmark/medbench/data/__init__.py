"""Dataset readers, one file each; samples, splits, and the decoded image store."""
