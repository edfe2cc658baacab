"""What all releases of the relay share: settings, the HTTP door with its middleware, delivery, probe and checks."""
