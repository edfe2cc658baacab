"""Ways to run the plane. Code here names the services and starts them; it never imports their insides."""
