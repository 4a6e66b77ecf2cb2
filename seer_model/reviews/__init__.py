"""Which listings a person should look at."""
