"""What the load tests share: children that end with us, a PostgreSQL, a staunch, an environment."""
