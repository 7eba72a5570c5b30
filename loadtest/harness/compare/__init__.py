"""Compares staunch with other login servers, or two of its commits with each other."""
