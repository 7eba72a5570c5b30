"""`loadtest/balancing`: a simulation of several nodes behind a load balancer."""
