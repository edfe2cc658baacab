"""What Prometheus and Grafana need to know of a plane: where to scrape, what to alert on, what to draw."""
