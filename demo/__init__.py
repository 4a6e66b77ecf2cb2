"""The demo: sample listings through the real jobs, and what came of them."""
