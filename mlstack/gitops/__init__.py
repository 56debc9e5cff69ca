"""Git facts: commit, branch, what is dirty, files at another commit."""
