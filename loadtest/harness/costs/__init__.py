"""`loadtest/costs`: what one request costs the node, PostgreSQL and the store."""
