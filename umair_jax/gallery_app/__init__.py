"""The gallery: a small web site over a recommender, its pages and what keeps it safe."""
