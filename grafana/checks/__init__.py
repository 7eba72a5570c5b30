"""What grafana/check is made of."""
