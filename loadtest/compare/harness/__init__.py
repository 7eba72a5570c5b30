"""What `run` is made of: processes, database, servers, scenarios, report."""
