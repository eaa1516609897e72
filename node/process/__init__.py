"""Process: the operator registry, the steps, and the child process that runs them."""
