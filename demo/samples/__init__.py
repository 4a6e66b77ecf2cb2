"""Sample listings for the demo: products, drawn in home-photo scenes, with their labels."""

from demo.samples.listings import SampleSummary, draw_sample_listings

__all__ = ["SampleSummary", "draw_sample_listings"]
