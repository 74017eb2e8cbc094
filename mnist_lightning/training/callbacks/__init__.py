"""What a run does besides learning, each on its own: it saves, counts, shows, remembers."""
