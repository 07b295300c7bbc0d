"""The command line: thin verbs over the package's functions."""
