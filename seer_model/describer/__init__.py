"""Alternative text: what is known of a photo, and how a locale says it."""
