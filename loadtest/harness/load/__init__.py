"""Runs k6 scripts against a server and checks that both counted the same requests."""
