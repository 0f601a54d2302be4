"""What asks the servers: programs of their own, so that they share no interpreter with anything."""
