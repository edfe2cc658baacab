"""The whole plane on one machine, from wheels: PostgreSQL, NATS and the five services, without Docker."""
