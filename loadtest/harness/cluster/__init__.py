"""Trials of a cluster: three nodes, a balancer, a store of counters, and PostgreSQL with a standby."""
