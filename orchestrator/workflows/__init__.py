"""One verb, one function: takes a Workspace and plain arguments, returns what was done, prints nothing."""
