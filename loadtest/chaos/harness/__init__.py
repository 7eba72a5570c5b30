"""What loadtest/chaos/run is made of: a stranger's HTTP client, the model, and the trials."""
