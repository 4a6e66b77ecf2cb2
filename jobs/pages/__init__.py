"""Pages and pictures that jobs write for people: HTML pages and contact sheets."""
