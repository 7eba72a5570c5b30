"""Races, kills, faults and attacks, whose answers are checked against a model of the server."""
